# bash completion for vmm. Made from src/cli by `make generated`.

_vmm() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
  # bash takes the = of --name=value for a word of its own.
  if [[ $cur == '=' ]]; then
    cur=
  elif [[ $prev == '=' && $COMP_CWORD -ge 2 ]]; then
    prev=${COMP_WORDS[COMP_CWORD-2]}
  fi
  COMPREPLY=()
  case $prev in
    --sparse)
      mapfile -t COMPREPLY < <(compgen -W 'auto always never' -- "$cur")
      return
      ;;
    --digest)
      mapfile -t COMPREPLY < <(compgen -W 'sha256' -- "$cur")
      return
      ;;
    --format)
      mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$cur")
      return
      ;;
    --protocol)
      mapfile -t COMPREPLY < <(compgen -W 'protobuf text' -- "$cur")
      return
      ;;
    --transport)
      mapfile -t COMPREPLY < <(compgen -W 'serial console auto' -- "$cur")
      return
      ;;
    --input|--output|--stats-file|--guest)
      compopt -o filenames
      mapfile -t COMPREPLY < <(compgen -f -- "$cur")
      return
      ;;
    --input-sector-size|--output-sector-size|--request-size|--queue-depth|--max-output-size|-p|--progress-percent|--timeout)
      return
      ;;
  esac
  if [[ $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W '--input --output --input-sector-size --output-sector-size --request-size --queue-depth --direct --fsync --sparse --max-output-size --force --digest --verify --progress-percent --format --verbose --quiet --debug --stats --stats-file --guest --protocol --transport --serial-input --timeout --no-sandbox --check --help --version' -- "$cur")
  else
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
  fi
}
complete -F _vmm vmm
