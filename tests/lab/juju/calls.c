/* Counts what a hook asks of daemons and commands, and kills the hook at one of its calls.
 *
 * Preloaded into the first process of a hook, and into what that process becomes by exec; not
 * into what it starts. A call is a request on a connection to a unix socket (all that is sent
 * until something comes back) or a command that is started; hook tools are not counted here, the
 * agent serves and counts them. "before" kills before anything of the request is sent or the
 * command begins; "after" when the first byte of the answer has come or the command has ended:
 * it has taken effect, and the hook does not know. The hook's process group dies at once; what
 * daemons and snapd do for it goes on.
 *
 * LAB_CALLS         file that gets one line for each call: a request's first line, a command's
 *                   program and first argument
 * LAB_CALLS_KILL    lines "before 5" or "after 5", the first that comes about counts, and of one call
 *                   "before"; with a line of that file behind it ("after 1 request ..."), so many
 *                   such calls are meant; may be missing
 * LAB_CALLS_IGNORE  programs in this directory are no calls
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILES 4096
#define WISHES 64
#define LINE 300
enum { OTHER, IDLE, ASKED };

/* Shared with a child between its fork and its exec, where commands are counted. */
static struct shared {
    int calls[WISHES]; /* so far, that a wish is about */
    int met;           /* the wish that came about */
    pid_t doomed;      /* when this command has ended, the hook dies */
} *shared;
static struct wish {
    int call, after;
    char what[LINE]; /* "" for any call */
} wishes[WISHES];
static int wished;
static pid_t leader;
static int doomed_fd = -1;
static const char *ignore, *record;
static char state[FILES];
static char place[FILES][108];
extern char **environ;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static void put(const char *line) {
    /* Opened each time: a child closes what it inherits before it becomes a command. */
    int fd = open(record, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return;
    char text[LINE + 1];
    int length = snprintf(text, sizeof text, "%s\n", line);
    if (write(fd, text, (size_t)length) < 0) length = 0;
    close(fd);
}

static void die(void) {
    char line[LINE];
    snprintf(line, sizeof line, "killed %d", shared->met);
    put(line);
    kill(0, SIGKILL);
    for (;;) pause();
}

/* Write a call down; tells whether the hook dies when the call has taken effect. */
static int call(const char *kind, const char *where, const char *what, size_t size) {
    char line[LINE];
    size_t end = 0;
    while (end < size && end < 150 && what[end] != '\r' && what[end] != '\n' && what[end]) end++;
    snprintf(line, sizeof line, "%s %s %.*s", kind, where, (int)end, what);
    put(line);
    int found = -1;
    for (int i = 0; i < wished; i++) {
        if (*wishes[i].what && strcmp(wishes[i].what, line)) continue;
        if (++shared->calls[i] != wishes[i].call) continue;
        if (found < 0 || wishes[i].after < wishes[found].after) found = i;
    }
    if (found < 0) return 0;
    shared->met = found;
    if (!wishes[found].after) die();
    return 1;
}

static void wish(char *line) {
    struct wish *new = &wishes[wished];
    char when[8];
    int length = 0;
    if (wished == WISHES || sscanf(line, "%7s %d %n", when, &new->call, &length) < 2) return;
    new->after = !strcmp(when, "after");
    snprintf(new->what, LINE, "%s", line + length);
    wished++;
}

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("LAB_CALLS"), *wanted = getenv("LAB_CALLS_KILL");
    if (!file || getpid() != getsid(0)) return;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        shared = NULL;
        return;
    }
    leader = getpid();
    ignore = getenv("LAB_CALLS_IGNORE");
    record = strdup(file);
    char *lines = strdup(wanted ? wanted : "");
    for (char *line = strtok(lines, "\n"); line; line = strtok(NULL, "\n")) wish(line);
    free(lines);
}

int connect(int fd, const struct sockaddr *address, socklen_t size) {
    REAL(connect);
    const struct sockaddr_un *to = (const struct sockaddr_un *)address;
    if (shared && fd >= 0 && fd < FILES) {
        int daemon = address->sa_family == AF_UNIX && !strstr(to->sun_path, "/nscd/");
        state[fd] = daemon ? IDLE : OTHER;
        if (daemon) snprintf(place[fd], sizeof place[fd], "%.107s", to->sun_path);
    }
    return real(fd, address, size);
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
    REAL(send);
    if (shared && fd >= 0 && fd < FILES && state[fd] == IDLE) {
        state[fd] = ASKED;
        if (call("request", place[fd], data, size)) doomed_fd = fd;
    }
    return real(fd, data, size, flags);
}

ssize_t recv(int fd, void *data, size_t size, int flags) {
    REAL(recv);
    ssize_t got = real(fd, data, size, flags);
    if (shared && fd >= 0 && fd < FILES && state[fd] == ASKED && got > 0) {
        if (fd == doomed_fd) die();
        state[fd] = IDLE;
    }
    return got;
}

int close(int fd) {
    REAL(close);
    if (shared && getpid() == leader && fd >= 0 && fd < FILES) state[fd] = OTHER; /* not a child's */
    return real(fd);
}

/* Between vfork and exec the child shares its parent's memory: nothing may be changed there but
 * what is shared on purpose. */
static int run(const char *program, char *const *words, char *const *environment) {
    REAL(execve);
    if (!shared || getpid() == leader) return real(program, words, environment);
    if (access(program, X_OK)) return real(program, words, environment); /* tried along the PATH */
    size_t count = 0, kept = 0;
    while (environment[count]) count++;
    char *clean[count + 1];
    for (size_t i = 0; i < count; i++)
        if (strncmp(environment[i], "LD_PRELOAD=", 11) && strncmp(environment[i], "LAB_CALLS", 9))
            clean[kept++] = environment[i];
    clean[kept] = NULL;
    if (!ignore || strncmp(program, ignore, strlen(ignore))) {
        const char *first = words[0] && words[1] ? words[1] : "";
        if (call("command", program, first, strlen(first))) shared->doomed = getpid();
    }
    return real(program, words, clean);
}

int execve(const char *program, char *const words[], char *const environment[]) {
    return run(program, words, environment);
}

int execv(const char *program, char *const words[]) {
    return run(program, words, environ);
}

pid_t waitpid(pid_t pid, int *status, int options) {
    REAL(waitpid);
    pid_t ended = real(pid, status, options);
    if (shared && ended > 0 && ended == shared->doomed) die();
    return ended;
}
