/* Resolves a name with the C library it is linked with, connects, says hello and prints what came back. */
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    if (argc != 3) return 2;
    int failed = getaddrinfo(argv[1], argv[2], &hints, &found);
    if (failed) return fprintf(stderr, "%s: %s\n", argv[1], gai_strerror(failed)), 3;
    for (struct addrinfo *a = found; a; a = a->ai_next) {
        char text[64];
        getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST);
        printf("%s\n", text);
    }
    int fd = socket(found->ai_family, SOCK_STREAM, 0);
    if (connect(fd, found->ai_addr, found->ai_addrlen)) return perror("connect"), 4;
    if (write(fd, "hello\n", 6) != 6) return perror("write"), 5;
    char reply[6];
    size_t got = 0;
    for (ssize_t n; got < sizeof reply && (n = read(fd, reply + got, sizeof reply - got)) > 0; got += n);
    printf("%.*s", (int)got, reply);
    return got == 6 ? 0 : 6;
}
