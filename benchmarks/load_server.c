/* The load target: HTTP/1.1 from memory, one thread, epoll. It knows a handful of paths, and answers them far faster than
 * any client asks, so that what is measured is the client.
 *
 *   load_server TASK ROW DEFINITION RECORD          (bodies; "#######" in RECORD stands for the number of a record)
 *
 * prints the port it listens at, and ends when its standard input does.
 *
 *   GET  .../tasks/{id}                        TASK
 *   GET  .../objects/{slug}                    DEFINITION
 *   POST .../records {"offset","limit"}        a page of RECORDs
 *   GET  /events/{framing}/{count}/{size}      a stream of events, `chunked` (a chunk each) or `plain` (with a length)
 *   GET  /control/{delay|total|page_size}/{x}  sets it (delay in seconds, for all that follows)
 *   GET  /control/counts/0                     what was answered so far, as JSON
 *   any  other path                            ROW
 *
 * A path may begin with /after/{ms}: its reply waits so long.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 16384, BLOCK = 1 << 18 };

static const char HEAD[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n";
static const char STREAM[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n";
static const char EVENT[] = "event: insight.batch.created\ndata: {\"insight_count\":1,\"content\":\"";
static const char EVENT_END[] = "\"}\n\n";
static const char PADDING[] = "Ordered twelve presses for the new plant, wants them before the autumn fair, asks for a second quote. ";

typedef struct {
    char *data;
    size_t length, size;
} Buffer;

typedef struct {
    int open, writing;
    uint32_t life;              /* tells a connection from the one that had its descriptor before */
    int busy;                   /* a reply is being written, or waits for its time */
    Buffer in, out;
    size_t sent;
    int chunked;
    long events, events_total;  /* of the stream that is being written */
    size_t event_size;
} Connection;

typedef struct {
    uint64_t due;
    int fd;
    uint32_t life;
} Timer;

static Connection connections[MOST_CONNECTIONS];
static Timer timers[MOST_CONNECTIONS];
static int timer_count, poll_fd, timer_fd;
static Buffer task, row, definition, record;
static size_t marks[32];
static int mark_count;
static double delay;
static long total, page_size = 100;
static struct { long connections, requests, tasks, pages, rows, events; } counts;

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void reserve(Buffer *buffer, size_t more) {
    if (buffer->length + more <= buffer->size) return;
    while (buffer->size < buffer->length + more) buffer->size = buffer->size ? 2 * buffer->size : 4096;
    buffer->data = realloc(buffer->data, buffer->size);
    if (!buffer->data) abort();
}

static void add(Buffer *buffer, const char *data, size_t length) {
    reserve(buffer, length);
    memcpy(buffer->data + buffer->length, data, length);
    buffer->length += length;
}

static void digits(char *at, long number) {
    for (int place = 6; place >= 0; place--, number /= 10) at[place] = (char)('0' + number % 10);
}

static Buffer whole_reply(const char *body) {
    char head[160];
    Buffer made = {0};
    add(&made, head, (size_t)snprintf(head, sizeof head, HEAD, strlen(body)));
    add(&made, body, strlen(body));
    return made;
}

/* ---- replies ---------------------------------------------------------------------------------------------------- */

static long asked(const char *body, const char *name, long otherwise) {
    const char *at = strstr(body, name);
    return at ? strtol(at + strlen(name) + 1 + (at[strlen(name)] == '"'), NULL, 10) : otherwise;
}

static void write_page(Buffer *out, const char *body) {
    long offset = asked(body, "offset", 0), limit = asked(body, "limit", page_size);
    long rows = total - offset < limit ? total - offset : limit;
    char head[160], tail[96];
    if (rows < 0) rows = 0;
    int tail_length = snprintf(tail, sizeof tail, "],\"total\":%ld,\"limit\":%ld,\"offset\":%ld}", total, limit, offset);
    size_t length = 9 + (size_t)rows * record.length + (size_t)(rows ? rows - 1 : 0) + (size_t)tail_length;
    add(out, head, (size_t)snprintf(head, sizeof head, HEAD, length));
    reserve(out, length);
    add(out, "{\"data\":[", 9);
    for (long number = 0; number < rows; number++) {
        if (number) add(out, ",", 1);
        char *at = out->data + out->length;
        add(out, record.data, record.length);
        for (int mark = 0; mark < mark_count; mark++) digits(at + marks[mark], offset + number);
    }
    add(out, tail, (size_t)tail_length);
}

static void write_event(Buffer *out, long number, size_t size, int chunked) {
    size_t fixed = sizeof EVENT - 1 + 8 + sizeof EVENT_END - 1, left = size > fixed ? size - fixed : 0;
    char text[32];
    if (chunked) add(out, text, (size_t)snprintf(text, sizeof text, "%zx\r\n", fixed + left));
    reserve(out, fixed + left + 4);
    add(out, EVENT, sizeof EVENT - 1);
    digits(text, number);
    text[7] = ' ';
    add(out, text, 8);
    while (left) {
        size_t piece = left < sizeof PADDING - 1 ? left : sizeof PADDING - 1;
        add(out, PADDING, piece);
        left -= piece;
    }
    add(out, EVENT_END, sizeof EVENT_END - 1);
    if (chunked) add(out, "\r\n", 2);
}

/* Fill the buffer with the next events of a stream. Returns whether there was anything to fill in. */
static int next_events(Connection *c) {
    if (c->events >= c->events_total) return 0;
    c->out.length = c->sent = 0;
    while (c->events < c->events_total && c->out.length < BLOCK) {
        write_event(&c->out, c->events++, c->event_size, c->chunked);
        counts.events++;
    }
    if (c->events == c->events_total && c->chunked) add(&c->out, "0\r\n\r\n", 5);
    return 1;
}

static void begin_events(Connection *c, const char *path) {
    char head[256];
    long count = 0, size = 0;
    int length;
    c->chunked = strncmp(path, "plain/", 6) != 0;
    sscanf(strchr(path, '/') ? strchr(path, '/') : "", "/%ld/%ld", &count, &size);
    size_t least = sizeof EVENT - 1 + 8 + sizeof EVENT_END - 1;
    c->events = 0, c->events_total = count, c->event_size = (size_t)size < least ? least : (size_t)size;
    if (c->chunked) length = snprintf(head, sizeof head, "%sTransfer-Encoding: chunked\r\n\r\n", STREAM);
    else length = snprintf(head, sizeof head, "%sContent-Length: %zu\r\n\r\n", STREAM, c->event_size * (size_t)count);
    add(&c->out, head, (size_t)length);
}

static void control(Buffer *out, const char *path) {
    char body[256] = "{}", head[160];
    if (!strncmp(path, "delay/", 6)) delay = strtod(path + 6, NULL);
    else if (!strncmp(path, "total/", 6)) total = (long)strtod(path + 6, NULL);
    else if (!strncmp(path, "page_size/", 10)) page_size = (long)strtod(path + 10, NULL);
    else
        snprintf(body, sizeof body,
                 "{\"connections\":%ld,\"requests\":%ld,\"tasks\":%ld,\"pages\":%ld,\"rows\":%ld,\"events\":%ld}",
                 counts.connections, counts.requests, counts.tasks, counts.pages, counts.rows, counts.events);
    add(out, head, (size_t)snprintf(head, sizeof head, HEAD, strlen(body)));
    add(out, body, strlen(body));
}

static int ends(const char *path, const char *with) {
    size_t length = strlen(path), tail = strlen(with);
    return length >= tail && !strcmp(path + length - tail, with);
}

/* Write the reply to a request into the connection's buffer. Returns the nanoseconds it is to wait. */
static uint64_t answer(Connection *c, const char *method, char *path, const char *body) {
    double wait = delay;
    char *query = strchr(path, '?');
    if (query) *query = 0;
    if (!strncmp(path, "/after/", 7)) wait = strtod(path + 7, &path) / 1000;
    c->out.length = c->sent = 0;
    if (!strncmp(path, "/control/", 9)) {
        control(&c->out, path + 9);
        return 0;
    }
    counts.requests++;
    if (!strncmp(path, "/events/", 8)) begin_events(c, path + 8);
    else if (ends(path, "/records")) write_page(&c->out, body), counts.pages++;
    else if (strstr(path, "/tasks/")) add(&c->out, task.data, task.length), counts.tasks++;
    else if (!strcmp(method, "GET") && strstr(path, "/objects/")) add(&c->out, definition.data, definition.length);
    else add(&c->out, row.data, row.length), counts.rows++;
    return (uint64_t)(wait * 1e9);
}

/* ---- timers: a heap, and one descriptor that fires for its head --------------------------------------------------- */

static void swap(int a, int b) {
    Timer kept = timers[a];
    timers[a] = timers[b], timers[b] = kept;
}

static void arm(void) {
    struct itimerspec when = {0};
    if (timer_count) {
        when.it_value.tv_sec = (time_t)(timers[0].due / 1000000000u);
        when.it_value.tv_nsec = (long)(timers[0].due % 1000000000u);
    }
    timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void start_timer(int fd, uint64_t wait) {
    if (timer_count == MOST_CONNECTIONS) abort();
    int at = timer_count++;
    timers[at] = (Timer){now() + wait, fd, connections[fd].life};
    for (; at && timers[at].due < timers[(at - 1) / 2].due; at = (at - 1) / 2) swap(at, (at - 1) / 2);
    if (!at) arm();
}

static Timer take_timer(void) {
    Timer first = timers[0];
    timers[0] = timers[--timer_count];
    for (int at = 0;;) {
        int least = at;
        for (int child = 2 * at + 1; child <= 2 * at + 2; child++)
            if (child < timer_count && timers[child].due < timers[least].due) least = child;
        if (least == at) return first;
        swap(at, least);
        at = least;
    }
}

/* ---- connections ------------------------------------------------------------------------------------------------ */

static void watch(int fd, uint32_t what, int how) {
    struct epoll_event event = {.events = what, .data.fd = fd};
    epoll_ctl(poll_fd, how, fd, &event);
}

static void drop(int fd) {
    Connection *c = &connections[fd];
    c->open = c->busy = c->writing = 0;
    c->life++;
    c->in.length = c->out.length = c->sent = 0;
    c->events = c->events_total = 0;
    close(fd);
}

/* Write what there is. Returns whether all of it is gone. */
static int flush(int fd) {
    Connection *c = &connections[fd];
    do {
        while (c->sent < c->out.length) {
            ssize_t written = send(fd, c->out.data + c->sent, c->out.length - c->sent, MSG_NOSIGNAL);
            if (written < 0) {
                if (errno != EAGAIN) return drop(fd), 0;
                if (!c->writing) watch(fd, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD), c->writing = 1;
                return 0;
            }
            c->sent += (size_t)written;
        }
    } while (next_events(c));
    if (c->writing) watch(fd, EPOLLIN, EPOLL_CTL_MOD), c->writing = 0;
    c->busy = 0;
    return 1;
}

static size_t length_of_body(const char *head) {
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n"))
        if (!strncasecmp(line + 2, "content-length:", 15)) return (size_t)strtol(line + 17, NULL, 10);
    return 0;
}

/* Answer the requests that are there, one after the other. */
static void serve(int fd) {
    Connection *c = &connections[fd];
    while (c->open && !c->busy && c->in.length) {
        add(&c->in, "", 1);
        c->in.length--;
        char *end = strstr(c->in.data, "\r\n\r\n");
        if (!end) return;
        end[2] = 0;
        size_t head = (size_t)(end - c->in.data) + 4, whole = head + length_of_body(c->in.data);
        end[2] = '\r';
        if (c->in.length < whole) return;
        char method[16] = "", path[2048] = "", after = c->in.data[whole];
        sscanf(c->in.data, "%15s %2047s", method, path);
        c->in.data[whole] = 0;
        uint64_t wait = answer(c, method, path, c->in.data + head);
        c->in.data[whole] = after;
        memmove(c->in.data, c->in.data + whole, c->in.length - whole);
        c->in.length -= whole;
        c->busy = 1;
        if (wait) start_timer(fd, wait);
        else if (!flush(fd)) return;
    }
}

static void receive(int fd) {
    Connection *c = &connections[fd];
    for (;;) {
        reserve(&c->in, 65536);
        ssize_t got = recv(fd, c->in.data + c->in.length, c->in.size - c->in.length - 1, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN)) return drop(fd);
        if (got > 0) c->in.length += (size_t)got;
        if (got < 65535) break;
    }
    serve(fd);
}

static void welcome(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MOST_CONNECTIONS) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        connections[fd].open = 1;
        counts.connections++;
        watch(fd, EPOLLIN, EPOLL_CTL_ADD);
    }
}

static void fire(void) {
    uint64_t expired;
    if (read(timer_fd, &expired, sizeof expired) < 0 && errno != EAGAIN) abort();
    while (timer_count && timers[0].due <= now()) {
        Timer timer = take_timer();
        if (connections[timer.fd].life == timer.life && flush(timer.fd)) serve(timer.fd);
    }
    arm();
}

static int listen_somewhere(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) || listen(fd, 4096)) abort();
    getsockname(fd, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(int count, char **arguments) {
    if (count != 5) return 2;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN);  /* a Ctrl-C is for the client, whose end ends our input */
    task = whole_reply(arguments[1]), row = whole_reply(arguments[2]), definition = whole_reply(arguments[3]);
    add(&record, arguments[4], strlen(arguments[4]));
    for (char *at = strstr(arguments[4], "#######"); at && mark_count < 32; at = strstr(at + 7, "#######"))
        marks[mark_count++] = (size_t)(at - arguments[4]);
    poll_fd = epoll_create1(EPOLL_CLOEXEC), timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int listener = listen_somewhere();
    watch(listener, EPOLLIN, EPOLL_CTL_ADD), watch(timer_fd, EPOLLIN, EPOLL_CTL_ADD), watch(0, EPOLLIN, EPOLL_CTL_ADD);
    for (;;) {
        struct epoll_event ready[256];
        int found = epoll_wait(poll_fd, ready, 256, -1);
        for (int index = 0; index < found; index++) {
            int fd = ready[index].data.fd;
            if (fd == 0) return 0;
            if (fd == listener) welcome(listener);
            else if (fd == timer_fd) fire();
            else {
                if (ready[index].events & EPOLLOUT && connections[fd].open && flush(fd)) serve(fd);
                if (ready[index].events & (EPOLLIN | EPOLLERR | EPOLLHUP) && connections[fd].open) receive(fd);
            }
        }
    }
}
