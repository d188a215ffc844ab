// A library: its functions are called from Python, after _initialize.
#include <stdlib.h>

static volatile int initialised;

__attribute__((constructor)) static void initialise(void) { initialised = 1; }

__attribute__((export_name("is_initialised"))) int is_initialised(void) { return initialised; }

__attribute__((export_name("sum"))) int sum(const int *numbers, int count) {
  int total = 0;
  for (int i = 0; i < count; i++)
    total += numbers[i];
  return total;
}

__attribute__((export_name("allocate"))) void *allocate(size_t size) { return malloc(size); }

__attribute__((export_name("leave"))) void leave(int code) { exit(code); }
