/* The floor under every client: librabbitmq alone, without a framework or Python.
 *
 *   c_client one_by_one|bulk|drain N HOST PORT VHOST QUEUE
 *
 * Publishes are persistent and confirmed, one at a time or with 1000 in flight; drain
 * acks each message by itself, with the prefetch of the other clients. Prints JSON.
 */
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define IN_FLIGHT 1000
#define PREFETCH 110

static amqp_connection_state_t connection;
static amqp_bytes_t queue;

static void fail(const char *what) {
    fprintf(stderr, "c_client: %s\n", what);
    exit(1);
}

static void check(const char *what) {
    if (amqp_get_rpc_reply(connection).reply_type != AMQP_RESPONSE_NORMAL) fail(what);
}

static double wall(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static double cpu(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec +
           (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void report(long n, double wall_start, double cpu_start) {
    double seconds = wall() - wall_start, used = cpu() - cpu_start;
    printf("{\"n\": %ld, \"wall\": %.6f, \"rate\": %.3f, \"cpu\": %.4f}\n", n, seconds,
           n / seconds, used / n * 1e6);
}

static void open_connection(const char *host, int port, const char *vhost) {
    connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    if (!socket || amqp_socket_open(socket, host, port)) fail("no connection");
    amqp_rpc_reply_t reply = amqp_login(connection, vhost, 0, 131072, 0,
                                        AMQP_SASL_METHOD_PLAIN, "guest", "guest");
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) fail("no login");
    amqp_channel_open(connection, 1);
    check("no channel");
}

static void publish(long number) {
    char body[64];
    int size = snprintf(body, sizeof body, "{\"task\": \"job\", \"args\": [%ld, \"x\"]}",
                        number);
    amqp_basic_properties_t properties = {0};
    properties._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG;
    properties.content_type = amqp_cstring_bytes("application/json");
    properties.delivery_mode = AMQP_DELIVERY_PERSISTENT;
    amqp_bytes_t bytes = {.len = (size_t)size, .bytes = body};
    if (amqp_basic_publish(connection, 1, amqp_empty_bytes, queue, 1, 0, &properties,
                           bytes))
        fail("not published");
}

/* Reads confirms until no more than `allowed` of the `sent` messages are open. */
static void await_confirms(uint64_t sent, uint64_t allowed) {
    static uint64_t confirmed = 0;
    while (sent - confirmed > allowed) {
        amqp_frame_t frame;
        if (amqp_simple_wait_frame(connection, &frame)) fail("connection lost");
        if (frame.frame_type != AMQP_FRAME_METHOD) continue;
        if (frame.payload.method.id != AMQP_BASIC_ACK_METHOD) fail("not confirmed");
        amqp_basic_ack_t *ack = frame.payload.method.decoded;
        /* one queue confirms in order, so each ack stands for all up to its number
         * when it says so, and for one otherwise */
        confirmed = ack->multiple ? ack->delivery_tag : confirmed + 1;
        amqp_maybe_release_buffers_on_channel(connection, 1);
    }
}

static void publish_all(long n, uint64_t in_flight) {
    amqp_confirm_select(connection, 1);
    check("no confirms");
    publish(-1);
    await_confirms(1, 0);
    double wall_start = wall(), cpu_start = cpu();
    for (long number = 0; number < n; number++) {
        publish(number);
        await_confirms((uint64_t)number + 2, in_flight - 1);
    }
    await_confirms((uint64_t)n + 1, 0);
    report(n, wall_start, cpu_start);
}

static void drain(long n) {
    double wall_start = 0, cpu_start = 0;
    amqp_basic_qos(connection, 1, 0, PREFETCH, 0);
    check("no qos");
    amqp_basic_consume(connection, 1, queue, amqp_empty_bytes, 0, 0, 0,
                       amqp_empty_table);
    check("no consumer");
    for (long number = 0; number < n; number++) {
        amqp_envelope_t envelope;
        amqp_maybe_release_buffers(connection);
        if (amqp_consume_message(connection, &envelope, NULL, 0).reply_type !=
            AMQP_RESPONSE_NORMAL)
            fail("no message");
        if (number == 0) wall_start = wall(), cpu_start = cpu();
        if (amqp_basic_ack(connection, 1, envelope.delivery_tag, 0)) fail("no ack");
        amqp_destroy_envelope(&envelope);
    }
    report(n, wall_start, cpu_start);
}

int main(int count, char **arguments) {
    if (count != 7) fail("wants SCENARIO N HOST PORT VHOST QUEUE");
    const char *scenario = arguments[1];
    long n = atol(arguments[2]);
    queue = amqp_cstring_bytes(arguments[6]);
    open_connection(arguments[3], atoi(arguments[4]), arguments[5]);
    if (!strcmp(scenario, "one_by_one"))
        publish_all(n, 1);
    else if (!strcmp(scenario, "bulk"))
        publish_all(n, IN_FLIGHT);
    else if (!strcmp(scenario, "drain"))
        drain(n);
    else
        fail("knows one_by_one, bulk and drain");
    amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(connection);
    return 0;
}
