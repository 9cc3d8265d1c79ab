# SPDX-License-Identifier: GPL-2.0
#
# For scripts on a guest that is slow. drbdadm gives a command of `up` five seconds, whatever the
# machine, and then gives up; the kernel goes on, and `adjust` does what is left.

drbdadm() {
	local told code=0
	[ "$1" = up ] || { command drbdadm "$@"; return; }
	{ told=$(command drbdadm "$@" 2>&1 >&3) || code=$?; } 3>&1
	echo -n "${told:+$told$'\n'}" >&2
	if [[ $told == *"did not terminate within 5 seconds"* ]]; then
		sleep 5
		code=0
		command drbdadm adjust "${@:2}" || code=$?
	fi
	return $code
}
