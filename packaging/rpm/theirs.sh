#!/bin/sh
# For scripts that have unpacked Debian 12's packages into the folder $debian: `theirs PROGRAM [ARG ...]`
# runs a program of theirs, on its own libraries, whatever this machine has.

libc=$(cd "${debian:?}" && find lib usr/lib -name libc.so.6 | head -n 1)
libraries=$debian/${libc%/*}:$debian/usr/lib/$(basename "${libc%/*}")
# The file itself: the link to it in lib64 is absolute, and leads to this machine's.
loader=${libc%/*}/$(basename "$debian/${libc%/*}"/ld-linux*)

theirs() {
    program=$1
    shift
    RPM_CONFIGDIR=$debian/usr/lib/rpm MAGIC=$debian/usr/lib/file/magic.mgc \
        "$debian/$loader" --library-path "$libraries" "$debian/usr/bin/$program" "$@"
}
