// cephmount COMMAND...: becomes COMMAND, whose mount(2) calls of the type "ceph" are served by ceph-fuse.
//
// A helper process keeps the listener of a seccomp filter that stops every mount(2) of COMMAND and its children.
// A mount of another type goes on as if nothing had been. A mount of "ceph" is answered with the success of
// ceph-fuse, run in the caller's mount namespace. The helper ends when nothing is left that has the filter.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#else
#error "cephmount is written for x86_64 and aarch64"
#endif

#define TEXT 4096

struct mount_call {
    char source[TEXT], target[TEXT], options[TEXT];
};

struct parsed {
    char *name, *secret, *filesystem, *path, *monitors;
};

static void send_descriptor(int socket_fd, int fd)
{
    char byte = 'x', space[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1,
                             .msg_control = space, .msg_controllen = sizeof(space)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    if (sendmsg(socket_fd, &message, 0) < 0) {
        perror("cephmount: sendmsg");
        _exit(1);
    }
}

static int receive_descriptor(int socket_fd)
{
    char byte, space[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1,
                             .msg_control = space, .msg_controllen = sizeof(space)};
    int fd = -1;
    if (recvmsg(socket_fd, &message, 0) > 0 && CMSG_FIRSTHDR(&message))
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
    return fd;
}

// Copy a string out of another process; empty for a null pointer.
static void read_text(int memory, unsigned long long address, char *out)
{
    size_t length = 0;
    out[0] = 0;
    while (address && length < TEXT - 1 && pread(memory, out + length, 1, address + length) == 1) {
        if (!out[length])
            return;
        length++;
    }
    out[length] = 0;
}

static struct parsed parse(struct mount_call *call)
{
    struct parsed found = {.name = "admin", .path = "/", .monitors = call->source};
    char *slash = strstr(call->source, ":/");
    if (slash) {
        *slash = 0;
        found.path = slash + 1;
    }
    for (char *word = strtok(call->options, ","); word; word = strtok(NULL, ",")) {
        if (!strncmp(word, "name=", 5))
            found.name = word + 5;
        else if (!strncmp(word, "secret=", 7))
            found.secret = word + 7;
        else if (!strncmp(word, "mds_namespace=", 14))
            found.filesystem = word + 14;
        else if (!strncmp(word, "fs=", 3))
            found.filesystem = word + 3;
    }
    return found;
}

// Become a member of the caller's mount namespace, in its directory.
static void enter(pid_t caller)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/ns/mnt", caller);
    int namespace = open(path, O_RDONLY | O_CLOEXEC);
    snprintf(path, sizeof(path), "/proc/%d/cwd", caller);
    int directory = open(path, O_RDONLY | O_CLOEXEC);
    if (namespace < 0 || setns(namespace, CLONE_NEWNS))
        _exit(EPERM);
    if (directory >= 0 && fchdir(directory))
        _exit(errno);
}

static int run_ceph_fuse(const struct parsed *what, const char *key_file, char *target)
{
    char user[128];
    char *argv[20];
    int count = 0;
    snprintf(user, sizeof(user), "client.%s", what->name);
    argv[count++] = "ceph-fuse";
    argv[count++] = "-n";
    argv[count++] = user;
    argv[count++] = "-m";
    argv[count++] = what->monitors;
    if (what->secret) {
        argv[count++] = "--keyfile";
        argv[count++] = (char *)key_file;
    }
    if (what->filesystem) {
        argv[count++] = "--client_fs";
        argv[count++] = what->filesystem;
    }
    argv[count++] = "-r";
    argv[count++] = what->path;
    // Wait for a metadata server as long as the kernel's client does.
    argv[count++] = "--fuse_require_active_mds=false";
    argv[count++] = "--client_mount_timeout=60";
    argv[count++] = target;
    argv[count] = NULL;
    pid_t child = fork();
    if (child == 0) {
        setsid();
        int null = open("/dev/null", O_RDWR);
        dup2(null, 0);
        dup2(null, 1);
        execvp(argv[0], argv);
        _exit(127);
    }
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : EIO;
}

// Serve one mount; 0 or an errno. In a child, since it changes the mount namespace.
static int serve(pid_t caller, struct mount_call *call)
{
    pid_t child = fork();
    if (child == 0) {
        struct parsed what = parse(call);
        struct stat status;
        char key_file[] = "/run/cephmountXXXXXX";
        enter(caller);
        if (stat(call->target, &status))
            _exit(errno);
        int key = mkstemp(key_file);
        if (key < 0)
            _exit(errno);
        if (what.secret)
            dprintf(key, "%s\n", what.secret);
        close(key);
        int result = run_ceph_fuse(&what, key_file, call->target);
        unlink(key_file);
        _exit(result);
    }
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}

// A container's root is not to have its mounts served by the machine's.
static int same_user_namespace(pid_t caller)
{
    char path[64];
    struct stat theirs, ours;
    snprintf(path, sizeof(path), "/proc/%d/ns/user", caller);
    return !stat(path, &theirs) && !stat("/proc/self/ns/user", &ours) && theirs.st_ino == ours.st_ino;
}

static void answer(int listener, struct seccomp_notif *request, struct seccomp_notif_resp *response)
{
    char path[64], type[TEXT];
    response->id = request->id;
    response->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    snprintf(path, sizeof(path), "/proc/%d/mem", request->pid);
    int memory = open(path, O_RDONLY | O_CLOEXEC);
    if (memory >= 0) {
        read_text(memory, request->data.args[2], type);
        if (!strcmp(type, "ceph") && same_user_namespace(request->pid)) {
            static struct mount_call call;
            read_text(memory, request->data.args[0], call.source);
            read_text(memory, request->data.args[1], call.target);
            read_text(memory, request->data.args[4], call.options);
            close(memory);
            // In a process of its own: other mounts must not wait for a slow cluster.
            if (fork() == 0) {
                signal(SIGCHLD, SIG_DFL);
                response->flags = 0;
                response->error = -serve(request->pid, &call);
                ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, response);
                _exit(0);
            }
            return;
        }
        close(memory);
    }
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, response);
}

static void listen_until_unused(int listener)
{
    struct seccomp_notif_sizes sizes;
    syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes);
    struct seccomp_notif *request = calloc(1, sizes.seccomp_notif + sizeof(*request));
    struct seccomp_notif_resp *response = calloc(1, sizes.seccomp_notif_resp + sizeof(*response));
    for (;;) {
        struct pollfd waiting = {listener, POLLIN, 0};
        if (poll(&waiting, 1, -1) < 0 && errno != EINTR)
            return;
        if (waiting.revents & POLLIN) {
            memset(request, 0, sizes.seccomp_notif);
            memset(response, 0, sizes.seccomp_notif_resp);
            if (!ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, request))
                answer(listener, request, response);
        } else if (waiting.revents & (POLLHUP | POLLERR)) {
            return;
        }
    }
}

static int install_filter(void)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mount, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof(program) / sizeof(*program), program};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter);
}

int main(int count, char **argv)
{
    int pair[2];
    if (count < 2) {
        fprintf(stderr, "usage: cephmount COMMAND...\n");
        return 2;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
        perror("cephmount: socketpair");
        return 1;
    }
    // Forked twice, so that it is no child of COMMAND; forked before the filter, so that it is free of it.
    pid_t between = fork();
    if (between == 0) {
        if (fork() == 0) {
            setsid();
            signal(SIGCHLD, SIG_IGN);
            prctl(PR_SET_NAME, "cephmount");
            close(pair[0]);
            int listener = receive_descriptor(pair[1]);
            close(pair[1]);
            if (listener >= 0)
                listen_until_unused(listener);
        }
        _exit(0);
    }
    waitpid(between, NULL, 0);
    close(pair[1]);
    int listener = install_filter();
    if (listener < 0) {
        perror("cephmount: seccomp");
        return 1;
    }
    send_descriptor(pair[0], listener);
    close(listener);
    close(pair[0]);
    execvp(argv[1], argv + 1);
    perror(argv[1]);
    return 127;
}
