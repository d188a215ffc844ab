// Clocks go on, random numbers differ, sleep and poll wait.
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int main(void) {
  struct timespec before, after, resolution;
  clock_gettime(CLOCK_MONOTONIC, &before);
  usleep(20000);
  clock_gettime(CLOCK_MONOTONIC, &after);
  long long passed = (after.tv_sec - before.tv_sec) * 1000000000LL + after.tv_nsec - before.tv_nsec;
  printf("slept: %d\n", passed >= 20000000);
  printf("now: %d\n", time(0) > 1700000000);
  clock_getres(CLOCK_MONOTONIC, &resolution);
  printf("resolution: %d\n", resolution.tv_sec == 0 && resolution.tv_nsec > 0);
  unsigned char first[64] = {0}, second[64] = {0};
  getentropy(first, sizeof first);
  getentropy(second, sizeof second);
  printf("random: %d\n", memcmp(first, second, sizeof first) != 0);
  struct pollfd polled[] = {{0, POLLIN, 0}, {1, POLLOUT, 0}};
  printf("polled: %d\n", poll(polled, 2, 1000) > 0);
  return 0;
}
