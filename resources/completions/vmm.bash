# bash completion for vmm. Made from src/cli by `make generated`.

_vmm_copy() {
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

_vmm_info() {
  case $prev in
    --image-format)
      mapfile -t COMPREPLY < <(compgen -W 'raw qcow2 qcow qed vmdk vhd vhdx vdi luks parallels dmg iso bochs cloop ewf gzip xz zstd bzip2 tar zip 7z' -- "$cur")
      return
      ;;
    --allow)
      mapfile -t COMPREPLY < <(compgen -W 'backing-file backing-format backing-options several-formats other-format unknown-format marked-corrupt marked-dirty virtual-size-too-large no-footer' -- "$cur")
      return
      ;;
    --format)
      mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$cur")
      return
      ;;
    --max-virtual-size|--timeout)
      return
      ;;
  esac
if [[ $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W '--image-format --allow --max-virtual-size --format --debug --timeout --no-sandbox --help' -- "$cur")
  else
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
  fi
}

_vmm_convert() {
  case $prev in
    --image-format)
      mapfile -t COMPREPLY < <(compgen -W 'raw qcow2 qcow qed vmdk vhd vhdx vdi luks parallels dmg iso bochs cloop ewf gzip xz zstd bzip2 tar zip 7z' -- "$cur")
      return
      ;;
    --allow)
      mapfile -t COMPREPLY < <(compgen -W 'backing-file backing-format backing-options several-formats other-format unknown-format marked-corrupt marked-dirty virtual-size-too-large no-footer' -- "$cur")
      return
      ;;
    --output-format)
      mapfile -t COMPREPLY < <(compgen -W 'raw qcow2' -- "$cur")
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
    --input|--output|--backing|--stats-file)
      compopt -o filenames
      mapfile -t COMPREPLY < <(compgen -f -- "$cur")
      return
      ;;
    --snapshot|--max-output-size|-p|--progress-percent|--timeout)
      return
      ;;
  esac
if [[ $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W '--input --output --backing --image-format --allow --snapshot --read-holes --output-format --max-output-size --digest --direct --fsync --force --progress-percent --format --verbose --quiet --debug --stats --stats-file --timeout --no-sandbox --help' -- "$cur")
  else
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
  fi
}

_vmm() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=
  # bash takes the = of --name=value for a word of its own.
  if [[ $cur == '=' ]]; then
    cur=
  elif [[ $prev == '=' && $COMP_CWORD -ge 2 ]]; then
    prev=${COMP_WORDS[COMP_CWORD-2]}
  fi
  COMPREPLY=()
  if [[ $COMP_CWORD -gt 1 ]]; then
    command=${COMP_WORDS[1]}
  fi
  case $command in
    info|check) _vmm_info ;;
    convert) _vmm_convert ;;
    *) _vmm_copy ;;
  esac
  # A file may have the name of a command.
  if [[ $COMP_CWORD -eq 1 && $cur != -* ]]; then
    mapfile -t COMPREPLY < <(compgen -f -W 'info check convert' -- "$cur" | sort -u)
  fi
}
complete -F _vmm vmm
