/* Preloaded before libc (LD_PRELOAD): records all operations on the database's files, in order, in the file that
 * POWER_JOURNAL names: `struct record`, the path, the bytes. A test reconstructs from it what a disk could hold after a
 * power failure. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { WRITE = 1, TRUNCATE = 2, SYNC = 3, REMOVE = 4 };
struct record { uint32_t kind, path; uint64_t at, bytes; };

static int journal = -1;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("POWER_JOURNAL");
  if (path) journal = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_watched(const char *path) {
  const char *name = strstr(path, "/lantern.db");
  return name && (!strcmp(name, "/lantern.db") || !strcmp(name, "/lantern.db-wal"));
}

static int path_of(int file, char *path, size_t size) {
  char link[64];
  if (journal < 0 || file == journal) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, size - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  return is_watched(path);
}

static void note(enum kind kind, const char *path, uint64_t at, const void *bytes, uint64_t length) {
  struct record record = {kind, (uint32_t)strlen(path), at, length};
  struct iovec parts[] = {{&record, sizeof record}, {(void *)path, record.path}, {(void *)bytes, bytes ? length : 0}};
  ssize_t whole = (ssize_t)(sizeof record + record.path + parts[2].iov_len);
  if (writev(journal, parts, 3) != whole) abort();
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
/* Hold the lock over the call and its record, so that no other thread's call comes between them. */
#define NOTED(call, done, kind, at, bytes, length)           \
  char path[4096];                                           \
  if (!path_of(file, path, sizeof path)) return call;        \
  pthread_mutex_lock(&turn);                                 \
  __typeof__(call) result = call;                            \
  if (done) note(kind, path, at, bytes, length);             \
  pthread_mutex_unlock(&turn);                               \
  return result

ssize_t pwrite(int file, const void *bytes, size_t length, off_t at) {
  NOTED(REAL(pwrite)(file, bytes, length, at), result > 0, WRITE, (uint64_t)at, bytes, (uint64_t)result);
}
ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t at) {
  NOTED(REAL(pwrite64)(file, bytes, length, at), result > 0, WRITE, (uint64_t)at, bytes, (uint64_t)result);
}
int ftruncate(int file, off_t length) {
  NOTED(REAL(ftruncate)(file, length), result == 0, TRUNCATE, 0, NULL, (uint64_t)length);
}
int ftruncate64(int file, off64_t length) {
  NOTED(REAL(ftruncate64)(file, length), result == 0, TRUNCATE, 0, NULL, (uint64_t)length);
}
int fsync(int file) { NOTED(REAL(fsync)(file), result == 0, SYNC, 0, NULL, 0); }
int fdatasync(int file) { NOTED(REAL(fdatasync)(file), result == 0, SYNC, 0, NULL, 0); }
int unlink(const char *path) {
  int watched = journal >= 0 && is_watched(path);
  int result = REAL(unlink)(path);
  if (watched && result == 0) {
    pthread_mutex_lock(&turn);
    note(REMOVE, path, 0, NULL, 0);
    pthread_mutex_unlock(&turn);
  }
  return result;
}
