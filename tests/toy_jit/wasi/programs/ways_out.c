// Tries to open what its arguments name, and to change it; says what came of each.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int count, char **paths) {
  int succeeded = 0;
  symlink("../outside", "/data/made_by_guest");
  for (int i = 1; i < count; i++) {
    struct stat status;
    int results[] = {
        open(paths[i], O_RDONLY),
        open(paths[i], O_WRONLY | O_CREAT | O_TRUNC, 0666),
        stat(paths[i], &status),
        opendir(paths[i]) ? 0 : -1,
        unlink(paths[i]),
        mkdir(paths[i], 0777),
        rename("/data/own", paths[i]),
        link("/data/own", paths[i]),
    };
    for (unsigned j = 0; j < sizeof results / sizeof *results; j++)
      if (results[j] >= 0) {
        printf("%s: %u succeeded\n", paths[i], j);
        succeeded++;
      }
  }
  return succeeded;
}
