// Prints its arguments, a variable and its input; returns the number of arguments.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **arguments) {
  for (int i = 1; i < count; i++)
    printf("argument %d: %s\n", i, arguments[i]);
  const char *variable = getenv("GREETING");
  printf("GREETING: %s\n", variable ? variable : "(none)");
  char line[256];
  while (fgets(line, sizeof line, stdin))
    printf("line of %zu bytes: %s", strlen(line), line);
  fprintf(stderr, "terminal: %d %d\n", isatty(0), isatty(1));
  return count;
}
