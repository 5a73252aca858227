# SPDX-License-Identifier: GPL-2.0-only
#
# Completion of shmk(1) for bash. It asks the command itself what it knows, so
# there is no list here to be kept up to date.

_shmk_pools() {
	shmk ls 2> /dev/null | sed -n '2,$s/ .*//p'
}

# Queues of a pool, as POOL/QUEUE
_shmk_queues() {
	shmk show "$1" 2> /dev/null |
		sed -n '/^ *QUEUE /,$s|^ *[0-9][0-9]* \([^ ]*\) .*|'"$1"'/\1|p'
}

_shmk_options() {
	shmk help "$1" 2> /dev/null | grep -o -e '--[a-z][a-z-]*' | sort -u
}

_shmk() {
	local cur=$2 line word command words colon
	COMPREPLY=()
	# A colon separates words for readline, but not for us.
	line=${COMP_LINE:0:COMP_POINT}
	cur=${line##*[[:space:]]}
	colon=${cur%"$2"}
	command=${COMP_WORDS[1]}
	if [ "$COMP_CWORD" = 1 ]; then
		words=$(shmk help | sed -n 's/^  \([a-z]*\) .*/\1/p')
	elif [[ $cur == -* ]]; then
		words=$(_shmk_options "$command")
	else
		case $command:$COMP_CWORD in
		pool:2) words="create drain load rm ls" ;;
		queue:2) words="create drain rm reset ls" ;;
		help:2) words=$(shmk help | sed -n 's/^  \([a-z]*\) .*/\1/p') ;;
		help:*|version:*|doctor:*|export:*) return ;;
		ls:*) words="shmk: local:" ;;
		*)
			if [[ $cur == */* ]]; then
				words=$(_shmk_queues "${cur%/*}")
			else
				words=$(_shmk_pools)
				[ "$command" != cleanup ] || words="$words shmk: local:"
				# A plain name goes to the module, or to local: where there is none.
				[ -z "$cur" ] || words="$words $(printf '%s\n' "$words" | sed -n 's/^[a-z]*://p')"
				case $command in
				send|recv|forward|pub|sub|queue) compopt -o nospace 2> /dev/null ;;
				esac
			fi
			;;
		esac
	fi
	while read -r word; do
		[ -z "$word" ] || COMPREPLY+=("${word#"$colon"}")
	done < <(compgen -W "$words" -- "$cur")
	# Files to send or to write
	[ ${#COMPREPLY[@]} -gt 0 ] || compopt -o default 2> /dev/null
}

complete -F _shmk shmk
