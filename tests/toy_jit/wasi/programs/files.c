// Works on files and folders below /data, and says what it finds.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int compare(const struct dirent **a, const struct dirent **b) {
  return strcmp((*a)->d_name, (*b)->d_name);
}

static void list(const char *path) {
  struct dirent **entries;
  int count = scandir(path, &entries, 0, compare);
  printf("%s has %d:", path, count);
  for (int i = 0; i < count; i++)
    printf(" %s%s", entries[i]->d_name, entries[i]->d_type == DT_DIR ? "/" : "");
  printf("\n");
}

static void try(const char *what, int result) {
  if (result < 0)
    printf("%s: %s\n", what, strerror(errno));
  else
    printf("%s: done\n", what);
}

int main(void) {
  char buffer[100];
  try("mkdir", mkdir("/data/made", 0777));
  try("mkdir again", mkdir("/data/made", 0777));
  FILE *file = fopen("/data/made/text", "w+");
  for (int i = 0; i < 10000; i++)
    fprintf(file, "line %d\n", i);
  printf("size %ld\n", ftell(file));
  fseek(file, 7000, SEEK_SET);
  printf("at 7000: %s", fgets(buffer, sizeof buffer, file));
  fclose(file);
  file = fopen("/data/made/text", "a");
  fputs("the end\n", file);
  fclose(file);
  struct stat status;
  try("stat", stat("/data/made/text", &status));
  printf("%d bytes, folder %d\n", (int)status.st_size, S_ISDIR(status.st_mode));
  try("rename", rename("/data/made/text", "/data/made/other"));
  try("stat", stat("/data/made/text", &status));
  try("link", link("/data/made/other", "/data/made/hard"));
  try("symlink", symlink("other", "/data/made/soft"));
  printf("link of %d: ", (int)readlink("/data/made/soft", buffer, 5));
  printf("%.5s\n", buffer);
  for (int i = 0; i < 200; i++) {
    snprintf(buffer, sizeof buffer, "/data/made/many-%03d", i);
    close(open(buffer, O_CREAT | O_WRONLY, 0666));
  }
  list("/data/made");
  list("/data");
  try("rmdir", rmdir("/data/made"));
  try("unlink folder", unlink("/data/made"));
  try("truncate", truncate("/data/made/other", 4));
  file = fopen("/data/made/soft", "r");
  printf("%s\n", fgets(buffer, sizeof buffer, file));
  try("unlink", unlink("/data/made/hard"));
  int fd = open("/data/made/other", O_RDWR);
  try("pwrite", pwrite(fd, "XY", 2, 1));
  printf("%zd bytes: ", pread(fd, buffer, 10, 0));
  printf("%.4s\n", buffer);
  try("write to what is read", write(open("/data/made/other", O_RDONLY), "x", 1));
  return 0;
}
