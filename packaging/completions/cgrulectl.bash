# Generated from the command lines in src/cli: UPDATE_GOLDEN=1 cargo test --test documents

# Names are compared and quoted here: compgen -W would expand them.
_cgrulectl_rules() {
    local name quoted
    COMPREPLY=()
    while IFS= read -r name; do
        printf -v quoted %q "$name"
        if [[ $cur == [\"\']* ]]; then
            [[ $name == "${cur:1}"* ]] && COMPREPLY+=("$name")
        elif [[ $name == "$cur"* || $quoted == "$cur"* ]]; then
            COMPREPLY+=("$quoted")
        fi
    done < <(cgrulectl list --names 2>/dev/null)
}

# From the first operand on it is a command line of its own. Takes a pattern of the flags with a value.
_cgrulectl_operand() {
    local at
    shopt -s extglob
    for ((at = 2; at < COMP_CWORD; at++)); do
        case ${COMP_WORDS[at]} in
        --) ((at++)) ;;
        $1)
            # The shell has split --user=root at its sign.
            [[ ${COMP_WORDS[at + 1]} == = ]] && ((at++))
            ((at++))
            continue
            ;;
        -*) continue ;;
        esac
        _command_offset $at
        return 0
    done
    return 1
}

_cgrulectl() {
    local cur prev words cword split
    _init_completion -s || return
    local command=${words[1]}
    if [[ $cword -eq 1 ]]; then
        COMPREPLY=($(compgen -W "check test explain list cat status watch history top metrics plan reload place run release doctor convert groups --help --version" -- "$cur"))
        return
    fi
    case $command in
    check)
        case $prev in
        --config)
            _filedir
            return
            ;;
        --rules)
            _filedir -d
            return
            ;;
        --root)
            _filedir
            return
            ;;
        --socket)
            _filedir
            return
            ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "--strict --json --config --rules --root --no-legacy --socket --help" -- "$cur"))
            return
        fi
        _filedir
        ;;
    test)
        case $prev in
        --config)
            _filedir
            return
            ;;
        --rules)
            _filedir -d
            return
            ;;
        --root)
            _filedir
            return
            ;;
        --socket)
            _filedir
            return
            ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "--all --json --tap --config --rules --root --no-legacy --socket --help" -- "$cur"))
            return
        fi
        _filedir
        ;;
    explain)
        case $prev in
        --user)
            COMPREPLY=($(compgen -u -- "$cur"))
            return
            ;;
        --group)
            COMPREPLY=($(compgen -g -- "$cur"))
            return
            ;;
        --exe)
            _filedir
            return
            ;;
        --unit)
            :
            return
            ;;
        --from)
            :
            return
            ;;
        --below)
            _filedir
            return
            ;;
        --container)
            :
            return
            ;;
        --login)
            COMPREPLY=($(compgen -u -- "$cur"))
            return
            ;;
        --argument)
            :
            return
            ;;
        --config)
            _filedir
            return
            ;;
        --rules)
            _filedir -d
            return
            ;;
        --root)
            _filedir
            return
            ;;
        --socket)
            _filedir
            return
            ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "--user --group --exe --unit --from --below --container --login --argument --all --json --config --rules --root --no-legacy --socket --help" -- "$cur"))
            return
        fi
        _pids
        ;;
    list)
        case $prev in
        --config)
            _filedir
            return
            ;;
        --rules)
            _filedir -d
            return
            ;;
        --root)
            _filedir
            return
            ;;
        --socket)
            _filedir
            return
            ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "--full --names --hits --json --config --rules --root --no-legacy --socket --help" -- "$cur"))
            return
        fi
        :
        ;;
    cat)
        case $prev in
        --config)
            _filedir
            return
            ;;
        --rules)
            _filedir -d
            return
            ;;
        --root)
            _filedir
            return
            ;;
        --socket)
            _filedir
            return
            ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "--config --rules --root --no-legacy --socket --help" -- "$cur"))
            return
        fi
        :
        ;;
    status)
        case $prev in
        --config)
            _filedir
            return
            ;;
        --rules)
            _filedir -d
            return
            ;;
        --root)
            _filedir
            return
            ;;
        --socket)
            _filedir
            return
            ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "--json --config --rules --root --no-legacy --socket --help" -- "$cur"))
            return
        fi
        :
        ;;
    watch)
        case $prev in
        --user)
            COMPREPLY=($(compgen -u -- "$cur"))
            return
            ;;
        --rule)
            _cgrulectl_rules
            return
            ;;
        --exe)
            _filedir
            return
            ;;
        --config)
            _filedir
            return
            ;;
        --rules)
            _filedir -d
            return
            ;;
        --root)
            _filedir
            return
            ;;
        --socket)
            _filedir
            return
            ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "--user --rule --exe --all --json --config --rules --root --no-legacy --socket --help" -- "$cur"))
            return
        fi
        :
        ;;
    history)
        case $prev in
        --since)
            :
            return
            ;;
        --pid)
            _pids
            return
            ;;
        --user)
            COMPREPLY=($(compgen -u -- "$cur"))
            return
            ;;
        --rule)
            _cgrulectl_rules
            return
            ;;
        --exe)
            _filedir
            return
            ;;
        --config)
            _filedir
            return
            ;;
        --rules)
            _filedir -d
            return
            ;;
        --root)
            _filedir
            return
            ;;
        --socket)
            _filedir
            return
            ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "--since --pid --user --rule --exe --all --json --config --rules --root --no-legacy --socket --help" -- "$cur"))
            return
        fi
        :
        ;;
    top)
        case $prev in
        -d | --delay)
            :
            return
            ;;
        -n | --iterations)
            :
            return
            ;;
        --sort)
            COMPREPLY=($(compgen -W "cpu memory io tasks pressure name" -- "$cur"))
            return
            ;;
        --config)
            _filedir
            return
            ;;
        --rules)
            _filedir -d
            return
            ;;
        --root)
            _filedir
            return
            ;;
        --socket)
            _filedir
            return
            ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "--delay --iterations --sort --once --json --config --rules --root --no-legacy --socket --help" -- "$cur"))
            return
        fi
        :
        ;;
    metrics)
        case $prev in
        --config)
            _filedir
            return
            ;;
        --rules)
            _filedir -d
            return
            ;;
        --root)
            _filedir
            return
            ;;
        --socket)
            _filedir
            return
            ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "--config --rules --root --no-legacy --socket --help" -- "$cur"))
            return
        fi
        :
        ;;
    plan)
        case $prev in
        --since)
            :
            return
            ;;
        --config)
            _filedir
            return
            ;;
        --rules)
            _filedir -d
            return
            ;;
        --root)
            _filedir
            return
            ;;
        --socket)
            _filedir
            return
            ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "--all --json --since --config --rules --root --no-legacy --socket --help" -- "$cur"))
            return
        fi
        _filedir
        ;;
    reload)
        case $prev in
        --config)
            _filedir
            return
            ;;
        --rules)
            _filedir -d
            return
            ;;
        --root)
            _filedir
            return
            ;;
        --socket)
            _filedir
            return
            ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "--plan --yes --json --config --rules --root --no-legacy --socket --help" -- "$cur"))
            return
        fi
        :
        ;;
    place)
        case $prev in
        --config)
            _filedir
            return
            ;;
        --rules)
            _filedir -d
            return
            ;;
        --root)
            _filedir
            return
            ;;
        --socket)
            _filedir
            return
            ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "--json --config --rules --root --no-legacy --socket --help" -- "$cur"))
            return
        fi
        _pids
        ;;
    run)
        _cgrulectl_operand '@(--user|--group|--cgroup|--controllers|--config|--rules|--root|--socket)' && return
        case $prev in
        --user)
            COMPREPLY=($(compgen -u -- "$cur"))
            return
            ;;
        --group)
            COMPREPLY=($(compgen -g -- "$cur"))
            return
            ;;
        --cgroup)
            _filedir
            return
            ;;
        --controllers)
            :
            return
            ;;
        --config)
            _filedir
            return
            ;;
        --rules)
            _filedir -d
            return
            ;;
        --root)
            _filedir
            return
            ;;
        --socket)
            _filedir
            return
            ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "--user --group --cgroup --controllers --config --rules --root --no-legacy --socket --help" -- "$cur"))
            return
        fi
        COMPREPLY=($(compgen -c -- "$cur"))
        ;;
    release)
        case $prev in
        --rule)
            _cgrulectl_rules
            return
            ;;
        --config)
            _filedir
            return
            ;;
        --rules)
            _filedir -d
            return
            ;;
        --root)
            _filedir
            return
            ;;
        --socket)
            _filedir
            return
            ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "--rule --all --dry-run --config --rules --root --no-legacy --socket --help" -- "$cur"))
            return
        fi
        :
        ;;
    doctor)
        case $prev in
        --config)
            _filedir
            return
            ;;
        --rules)
            _filedir -d
            return
            ;;
        --root)
            _filedir
            return
            ;;
        --socket)
            _filedir
            return
            ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "--json --config --rules --root --no-legacy --socket --help" -- "$cur"))
            return
        fi
        :
        ;;
    convert)
        case $prev in
        --from)
            COMPREPLY=($(compgen -W "cgrules cgconfig ananicy" -- "$cur"))
            return
            ;;
        --config)
            _filedir
            return
            ;;
        --rules)
            _filedir -d
            return
            ;;
        --root)
            _filedir
            return
            ;;
        --socket)
            _filedir
            return
            ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "--from --config --rules --root --no-legacy --socket --help" -- "$cur"))
            return
        fi
        _filedir
        ;;
    groups)
        case $prev in
        --config)
            _filedir
            return
            ;;
        --rules)
            _filedir -d
            return
            ;;
        --root)
            _filedir
            return
            ;;
        --socket)
            _filedir
            return
            ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "--dry-run --verbose --config --rules --root --no-legacy --socket --help" -- "$cur"))
            return
        fi
        _filedir
        ;;
    esac
} &&
    complete -F _cgrulectl cgrulectl
