#!/bin/sh
# Runs as root inside the new root file system, without network, after Debian's
# packages are in. /build has the wheels, requirements.txt and selftest.py; the
# builder removes it afterwards.
set -eu
# Sets of names, as in matplotlib's list of fonts, in the same order every time.
export PYTHONHASHSEED=0

site=/usr/local/lib/python3.13/dist-packages

# --- wheels, system wide
# Debian's mark would make `pip install` refuse; in a sandbox there is nothing to
# protect from it, and as an unprivileged user it goes to ~/.local anyway.
rm -f /usr/lib/python3.13/EXTERNALLY-MANAGED
# --ignore-installed: Debian's pip brings a few of these as Debian packages, which
# pip cannot remove; /usr/local comes first in sys.path.
umask 022
python3 -m pip install --quiet --no-index --find-links=/build/wheels --no-deps \
	--ignore-installed --require-hashes --no-compile --no-cache-dir --disable-pip-version-check \
	--root-user-action=ignore --requirement=/build/requirements.txt

# --- what nobody runs in a sandbox
# Test suites are a fifth of the wheels. Only whole folders named tests go, and
# selftest.py below imports every package afterwards.
find "$site" -depth -type d -name tests -exec rm -rf {} +
# Headers and Cython sources are needed to compile against the packages only.
rm -rf "$site"/pyarrow/include "$site"/pyarrow/includes "$site"/pyarrow/src
find "$site" -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' \) -delete

# --- plots
find /usr/share/fonts/truetype/nanum -type f ! -name NanumGothic.ttf -delete
python3 -B /build/fontfallback.py "$site/matplotlib/font_manager.py"

# --- the user
# Written by hand: useradd is not in the image, and would record today's date.
echo 'user:x:1000:' >>/etc/group
echo 'user:!::' >>/etc/gshadow
echo 'user:x:1000:1000:user:/home/user:/bin/bash' >>/etc/passwd
echo 'user:!:1::::::' >>/etc/shadow
cp -r /etc/skel /home/user
chown -R 1000:1000 /home/user
chmod 755 /home/user
for dir in /workspace /uploaded_files; do
	mkdir -p "$dir"
	chown 1000:1000 "$dir"
done

# --- byte code
# unchecked-hash: Python neither stats the source nor compares times, so imports
# do fewer system calls (each is dear in gVisor) and stay valid in every form
# that the image takes.
# Two fixed halves rather than -j: what a worker compiled before shows in the
# bytes of the next file, and the image would have another digest each time.
compile() {
	python3 -m compileall -q -f --invalidation-mode unchecked-hash "$@"
}
compile "$site"/[!q-z]* &
half=$!
compile "$site"/[q-z]* /usr/lib/python3.13 /usr/lib/python3/dist-packages
wait "$half"

# --- first use
# As the user: caches (matplotlib's list of fonts) land in the home directory.
cd /workspace
setpriv --reuid=1000 --regid=1000 --clear-groups \
	env HOME=/home/user python3 -B /build/selftest.py
cd /

# --- places that a build leaves its traces in
rm -rf /var/log/* /var/cache/* /var/lib/apt/lists/* /tmp/* /root/.cache
mkdir -p /var/cache/apt/archives/partial /var/lib/apt/lists/partial
find / -xdev -type f -name '*.dpkg-old' -delete
echo sandbox >/etc/hostname
printf '127.0.0.1 localhost sandbox\n::1 localhost sandbox\n' >/etc/hosts
: >/etc/resolv.conf
# A machine id is made per machine; an empty file says "not yet".
: >/etc/machine-id
