/*
 * An NSS module with the users and groups of the files passwd and group in the directory of the
 * environment variable CGT_NSS. A lookup of a UID takes as long as the file slow-UID exists; it fails
 * while the file fails-UID exists, and returns the user of another UID while wrong-UID exists.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <nss.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void path_of(char *path, size_t size, const char *name)
{
    const char *directory = getenv("CGT_NSS");

    snprintf(path, size, "%s/%s", directory ? directory : "/nonexistent", name);
}

static int has(const char *state, uid_t uid)
{
    char name[32], path[256];

    snprintf(name, sizeof name, "%s-%u", state, uid);
    path_of(path, sizeof path, name);
    return access(path, F_OK) == 0;
}

static FILE *database(const char *name)
{
    char path[256];

    path_of(path, sizeof path, name);
    return fopen(path, "re");
}

static enum nss_status result(int error, int *errnop)
{
    *errnop = error;
    return error == ERANGE ? NSS_STATUS_TRYAGAIN : error ? NSS_STATUS_NOTFOUND : NSS_STATUS_SUCCESS;
}

static enum nss_status user(const char *name, uid_t uid, struct passwd *entry, char *buffer,
                            size_t size, int *errnop)
{
    FILE *file = database("passwd");
    struct passwd *found = NULL;
    int error = ENOENT;

    if (!file)
        return result(ENOENT, errnop);
    while ((error = fgetpwent_r(file, entry, buffer, size, &found)) == 0)
        if (name ? !strcmp(found->pw_name, name) : found->pw_uid == uid)
            break;
    fclose(file);
    return result(error, errnop);
}

static enum nss_status group(const char *name, gid_t gid, struct group *entry, char *buffer,
                             size_t size, int *errnop)
{
    FILE *file = database("group");
    struct group *found = NULL;
    int error = ENOENT;

    if (!file)
        return result(ENOENT, errnop);
    while ((error = fgetgrent_r(file, entry, buffer, size, &found)) == 0)
        if (name ? !strcmp(found->gr_name, name) : found->gr_gid == gid)
            break;
    fclose(file);
    return result(error, errnop);
}

enum nss_status _nss_cgt_getpwnam_r(const char *name, struct passwd *entry, char *buffer,
                                    size_t size, int *errnop)
{
    return user(name, 0, entry, buffer, size, errnop);
}

enum nss_status _nss_cgt_getpwuid_r(uid_t uid, struct passwd *entry, char *buffer, size_t size,
                                    int *errnop)
{
    while (has("slow", uid))
        usleep(10000);
    if (has("fails", uid)) {
        *errnop = EAGAIN;
        return NSS_STATUS_TRYAGAIN;
    }
    if (has("wrong", uid))
        uid++;
    return user(NULL, uid, entry, buffer, size, errnop);
}

enum nss_status _nss_cgt_getgrnam_r(const char *name, struct group *entry, char *buffer,
                                    size_t size, int *errnop)
{
    return group(name, 0, entry, buffer, size, errnop);
}

enum nss_status _nss_cgt_getgrgid_r(gid_t gid, struct group *entry, char *buffer, size_t size,
                                    int *errnop)
{
    return group(NULL, gid, entry, buffer, size, errnop);
}

static int lists(const struct group *entry, const char *user)
{
    for (char **member = entry->gr_mem; *member; member++)
        if (!strcmp(*member, user))
            return 1;
    return 0;
}

enum nss_status _nss_cgt_initgroups_dyn(const char *user, gid_t primary, long *start, long *size,
                                        gid_t **groups, long limit, int *errnop)
{
    size_t length = 8 << 20;
    char *buffer = malloc(length);
    FILE *file = database("group");
    struct group entry, *found;

    while (buffer && file && fgetgrent_r(file, &entry, buffer, length, &found) == 0) {
        if (entry.gr_gid == primary || !lists(found, user))
            continue;
        if (*start == *size) {
            gid_t *more = limit > 0 && *size >= limit ? NULL
                                                       : realloc(*groups, 2 * *size * sizeof **groups);
            if (!more)
                break;
            *groups = more;
            *size *= 2;
        }
        (*groups)[(*start)++] = entry.gr_gid;
    }
    if (file)
        fclose(file);
    free(buffer);
    return result(file ? 0 : ENOENT, errnop);
}
