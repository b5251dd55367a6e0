// A process whose thread-group leader has exited while another thread lives.
#include <pthread.h>
#include <unistd.h>

static void *sleep_forever(void *unused) {
    while (pause() != 0)
        ;
    return unused;
}

int main(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, sleep_forever, NULL) != 0)
        return 1;
    pthread_exit(NULL);
}
