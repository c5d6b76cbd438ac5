/* Hook tools of the unit agent: one program under many names.
 *
 * Sends its name, arguments and working directory to the agent and prints what comes back.
 * It is in C because a hook calls it a dozen times, and starting an interpreter for each would
 * cost more than the hook itself. Standard input is read only for "--file -": a tool that always
 * read it could wait for ever.
 *
 * Request:  u32 count, then count strings (u32 length, bytes): context, directory, stdin or
 *           "", name, arguments.   Answer: u32 exit code, u32 length, stdout, u32 length, stderr.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void die(const char *what) {
    fprintf(stderr, "ERROR %s: %s\n", what, strerror(errno));
    exit(1);
}

struct text { char *data; size_t size, room; };

static void add(struct text *t, const void *data, size_t size) {
    if (t->size + size > t->room) {
        t->room = (t->size + size) * 2 + 4096;
        t->data = realloc(t->data, t->room);
        if (!t->data) die("out of memory");
    }
    memcpy(t->data + t->size, data, size);
    t->size += size;
}

static void add_string(struct text *t, const char *data, size_t size) {
    uint32_t length = htonl((uint32_t)size);
    add(t, &length, 4);
    add(t, data, size);
}

static void write_all(int fd, const char *data, size_t size) {
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) die("cannot write");
        data += n;
        size -= (size_t)n;
    }
}

static void read_all(int fd, char *data, size_t size) {
    while (size > 0) {
        ssize_t n = read(fd, data, size);
        if (n < 0 && errno == EINTR) continue;
        if (n == 0) errno = ECONNRESET;
        if (n <= 0) die("connection to the unit agent is shut down");
        data += n;
        size -= (size_t)n;
    }
}

static uint32_t read_number(int fd) {
    uint32_t value;
    read_all(fd, (char *)&value, 4);
    return ntohl(value);
}

static int wants_stdin(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--")) return 0;
        if (!strcmp(argv[i], "--file=-")) return 1;
        if ((!strcmp(argv[i], "--file") || !strcmp(argv[i], "-file")) && i + 1 < argc
            && !strcmp(argv[i + 1], "-"))
            return 1;
    }
    return 0;
}

static void copy_out(int from, int to) {
    uint32_t size = read_number(from);
    char *data = malloc(size + 1);
    if (!data) die("out of memory");
    read_all(from, data, size);
    write_all(to, data, size);
    free(data);
}

/* juju-exec UNIT COMMAND... runs outside hooks: the unit's agent listens at a fixed place. */
static const char *exec_socket(int argc, char **argv, char *path, size_t room) {
    char unit[200];
    if (argc < 3) {
        fprintf(stderr, "ERROR usage: juju-exec <unit> <command>\n");
        exit(2);
    }
    snprintf(unit, sizeof unit, "%s", argv[1]);
    for (char *c = unit; *c; c++)
        if (*c == '/') *c = '-';
    const char *base = getenv("JUJU_DATA_DIR");
    snprintf(path, room, "%s/agents/unit-%s/run.socket", base ? base : "/var/lib/juju", unit);
    return path;
}

int main(int argc, char **argv) {
    const char *slash = strrchr(argv[0], '/');
    const char *name = slash ? slash + 1 : argv[0];
    const char *context = getenv("JUJU_CONTEXT_ID");
    const char *address = getenv("JUJU_AGENT_SOCKET_ADDRESS");
    char path[400], directory[4096];
    if (!strcmp(name, "juju-exec") || !strcmp(name, "juju-run")) {
        context = "";
        address = exec_socket(argc, argv, path, sizeof path);
    }
    if (!context || !address) {
        fprintf(stderr, "ERROR JUJU_CONTEXT_ID or JUJU_AGENT_SOCKET_ADDRESS not set: %s runs only "
                        "in a hook\n", name);
        return 1;
    }
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (address[0] == '@') {
        strncpy(to.sun_path + 1, address + 1, sizeof to.sun_path - 2);
    } else {
        strncpy(to.sun_path, address, sizeof to.sun_path - 1);
    }
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(address));
    if (address[0] != '@') length = sizeof to;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, length)) die("cannot reach the unit agent");
    if (!getcwd(directory, sizeof directory)) strcpy(directory, "/");
    struct text input = {0}, request = {0};
    if (wants_stdin(argc, argv)) {
        char chunk[65536];
        ssize_t n;
        while ((n = read(0, chunk, sizeof chunk)) > 0) add(&input, chunk, (size_t)n);
    }
    uint32_t count = htonl((uint32_t)(3 + argc));
    add(&request, &count, 4);
    add_string(&request, context, strlen(context));
    add_string(&request, directory, strlen(directory));
    add_string(&request, input.data ? input.data : "", input.size);
    add_string(&request, name, strlen(name));
    for (int i = 1; i < argc; i++) add_string(&request, argv[i], strlen(argv[i]));
    write_all(fd, request.data, request.size);
    uint32_t code = read_number(fd);
    copy_out(fd, 1);
    copy_out(fd, 2);
    return (int)code;
}
