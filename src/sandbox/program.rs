//! Assembles a filter's program (seccomp(2), and Linux's documentation of BPF filters).
//!
//! Installing a filter makes the kernel run it for each number that a call can have, so that the
//! way through it is paid for at each thread's start, which a small copy notices. seccompiler's
//! compiler has one answer for all calls on a list, and compares a number with all of them, with
//! five instructions for each; here three answers make one program, which finds a number by
//! halves, and most calls are one instruction.

use std::collections::{BTreeMap, BTreeSet};

use seccompiler::{BackendError, BpfProgram, sock_filter};

use super::call::{Condition, Test};

/// Where the kernel's `seccomp_data` has the call's number, the architecture, and the lower halves
/// of the arguments.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
const ARGUMENT_COUNT: u8 = 6;

/// `AUDIT_ARCH_X86_64`. Calls of 32-bit programs have other numbers; those of x32 have a bit that
/// is on no list.
const X86_64: u32 = 0xc000_003e;

/// Instructions (linux/bpf_common.h).
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const JUMP_IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const KILL_PROCESS: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const TRAP: u32 = libc::SECCOMP_RET_TRAP | OWN_TRAP as u32;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const DENY: u32 = libc::SECCOMP_RET_ERRNO | libc::EACCES.cast_unsigned();

/// What the signal for a trapped call has as its error number, where the trap is not that of a filter
/// around the process.
pub(super) const OWN_TRAP: u16 = 0x564d;

/// So many calls are compared one by one. Fewer make the program longer, which the kernel compiles.
const COMPARED: usize = 8;

/// The alternatives for each call; none means that any arguments will do.
pub(super) type Rules<'a> = BTreeMap<i64, Vec<&'a [Condition]>>;

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

const fn ret(answer: u32) -> sock_filter {
    instruction(RETURN, 0, 0, answer)
}

/// A program that denies the `answered` calls, allows those that keep to `rules`, and traps others.
pub(super) fn assemble(rules: &Rules<'_>, answered: &[i64]) -> Result<BpfProgram, BackendError> {
    let mut program = vec![
        instruction(LOAD, 0, 0, ARCHITECTURE),
        instruction(JUMP_IF_EQUAL, 1, 0, X86_64),
        ret(KILL_PROCESS),
        instruction(LOAD, 0, 0, NUMBER),
    ];
    let listed: BTreeSet<i64> = answered.iter().chain(rules.keys()).copied().collect();
    let listed: Vec<i64> = listed.into_iter().collect();
    program.extend(search(&listed, rules, answered)?);
    Ok(program)
}

/// Halves the calls until so few of them are left that each can be compared.
fn search(calls: &[i64], rules: &Rules<'_>, answered: &[i64]) -> Result<BpfProgram, BackendError> {
    if calls.len() <= COMPARED {
        return compare(calls, rules, answered);
    }
    let (lower, upper) = calls.split_at(calls.len() / 2);
    let first = number(upper[0])?;
    let lower = search(lower, rules, answered)?;
    let over = u32::try_from(lower.len()).map_err(|_| BackendError::FilterTooLarge(lower.len()))?;
    // A conditional jump is at most 255 instructions long.
    let mut program = vec![
        instruction(JUMP_IF_AT_LEAST, 0, 1, first),
        instruction(JUMP, 0, 0, over),
    ];
    program.extend(lower);
    program.extend(search(upper, rules, answered)?);
    Ok(program)
}

/// Compares the number with each of `calls`.
fn compare(calls: &[i64], rules: &Rules<'_>, answered: &[i64]) -> Result<BpfProgram, BackendError> {
    // First, since no list can allow what is answered.
    let (denied, listed): (Vec<i64>, Vec<i64>) =
        calls.iter().partition(|call| answered.contains(call));
    let listed = listed
        .iter()
        .filter_map(|call| Some((*call, rules.get(call)?)));
    let (free, tested): (Vec<_>, Vec<_>) =
        listed.partition(|(_, alternatives)| alternatives.is_empty());
    let free: Vec<i64> = free.into_iter().map(|(call, _)| call).collect();
    let mut program = Vec::new();
    group(&mut program, &denied, DENY)?;
    group(&mut program, &free, ALLOW)?;
    for (call, alternatives) in tested {
        let mut block = Vec::new();
        for conditions in alternatives {
            block.extend(alternative(conditions)?);
        }
        block.push(ret(TRAP));
        let over = distance(block.len())?;
        program.push(instruction(JUMP_IF_EQUAL, 0, over, number(call)?));
        program.extend(block);
    }
    program.push(ret(TRAP));
    Ok(program)
}

/// The same answer for all of `calls`.
fn group(program: &mut BpfProgram, calls: &[i64], answer: u32) -> Result<(), BackendError> {
    if calls.is_empty() {
        return Ok(());
    }
    for (index, &call) in calls.iter().enumerate() {
        let to_answer = distance(calls.len() - index)?;
        program.push(instruction(JUMP_IF_EQUAL, to_answer, 0, number(call)?));
    }
    program.push(instruction(JUMP, 0, 0, 1));
    program.push(ret(answer));
    Ok(())
}

/// Allows the call if all of `conditions` hold, and goes on behind itself if not. It is put
/// together from its end, so that each jump knows how far that is.
fn alternative(conditions: &[Condition]) -> Result<Vec<sock_filter>, BackendError> {
    let mut reversed = vec![ret(ALLOW)];
    for condition in conditions.iter().rev() {
        let out = distance(reversed.len())?;
        match condition.test {
            Test::Equals(value) => reversed.push(instruction(JUMP_IF_EQUAL, 0, out, value)),
            Test::HasNone(bits) => reversed.push(instruction(JUMP_IF_ANY_BIT, out, 0, bits)),
            Test::HasAll(bits) => {
                reversed.push(instruction(JUMP_IF_EQUAL, 0, out, bits));
                reversed.push(instruction(AND, 0, 0, bits));
            }
        }
        if condition.argument >= ARGUMENT_COUNT {
            return Err(BackendError::InvalidArgumentNumber);
        }
        let place = ARGUMENTS + 8 * u32::from(condition.argument);
        reversed.push(instruction(LOAD, 0, 0, place));
    }
    reversed.reverse();
    Ok(reversed)
}

fn distance(instructions: usize) -> Result<u8, BackendError> {
    u8::try_from(instructions).map_err(|_| BackendError::FilterTooLarge(instructions))
}

/// A number that no call can have is as good as one that no call has.
fn number(call: i64) -> Result<u32, BackendError> {
    u32::try_from(call).map_err(|_| BackendError::FilterTooLarge(usize::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    /// What the kernel would make of it.
    fn evaluate(program: &[sock_filter], data: impl Fn(u32) -> u32) -> u32 {
        run(program, data).0
    }

    /// The answer, and how many instructions there are on the way to it.
    fn run(program: &[sock_filter], data: impl Fn(u32) -> u32) -> (u32, usize) {
        let (mut next, mut value) = (0_usize, 0);
        for count in 1.. {
            let sock_filter { code, jt, jf, k } = program[next].clone();
            next += 1;
            let is_true = match code {
                LOAD => {
                    value = data(k);
                    continue;
                }
                AND => {
                    value &= k;
                    continue;
                }
                JUMP => {
                    next += usize::try_from(k).unwrap();
                    continue;
                }
                JUMP_IF_EQUAL => value == k,
                JUMP_IF_AT_LEAST => value >= k,
                JUMP_IF_ANY_BIT => value & k != 0,
                RETURN => return (k, count),
                _ => panic!("{code:#x}"),
            };
            next += usize::from(if is_true { jt } else { jf });
        }
        unreachable!("a program ends");
    }

    #[test]
    fn the_way_to_an_answer_is_short_however_many_calls_there_are() {
        let rules: Rules<'_> = (0..400).step_by(2).map(|call| (call, Vec::new())).collect();
        let program = assemble(&rules, &[]).unwrap();
        for number in 0..500 {
            let data = |place| if place == NUMBER { number } else { X86_64 };
            let (_, count) = run(&program, data);
            assert!(count < 30, "{number}: {count}");
        }
    }

    #[test]
    fn each_call_gets_its_answer_whatever_its_arguments() {
        let equals = |argument, value| Condition::new(argument, Test::Equals(value));
        let (zero, seven) = ([equals(0, 0)], [equals(0, 7), equals(5, 8)]);
        let bits = [
            Condition::new(1, Test::HasNone(4)),
            Condition::new(2, Test::HasAll(0x30)),
        ];
        let mut rules = Rules::from([
            (0, Vec::new()),
            (5, vec![zero.as_slice(), seven.as_slice()]),
            (6, vec![bits.as_slice()]),
            (7, Vec::new()),
            (9, Vec::new()),
        ]);
        // So many that they are halved several times, and what lies between them.
        rules.extend((100..400).step_by(3).map(|call| (call, Vec::new())));
        let answered: Vec<_> = [2, 7].into_iter().chain((102..400).step_by(9)).collect();
        let program = assemble(&rules, &answered).unwrap();
        let values = [0, 4, 7, 8, 0x20, 0x30, 0x3f, 0xf0, u32::MAX];
        for number in (0..500).chain([0x4000_0000, u32::MAX]) {
            for first in values {
                for last in values {
                    // The second argument is the first one, the third is the last one.
                    let data = |place| match place {
                        NUMBER => number,
                        ARCHITECTURE => X86_64,
                        16 | 24 => first,
                        32 | 56 => last,
                        _ => panic!("nobody looks at {place}"),
                    };
                    let allowed = match number {
                        0 | 9 => true,
                        100..400 => number % 3 == 1,
                        5 => first == 0 || (first == 7 && last == 8),
                        6 => first & 4 == 0 && last & 0x30 == 0x30,
                        _ => false,
                    };
                    let expected = match number {
                        2 | 7 => DENY,
                        102..400 if number % 9 == 3 => DENY,
                        _ if allowed => ALLOW,
                        _ => TRAP,
                    };
                    let found = evaluate(&program, data);
                    assert_eq!(found, expected, "{number} {first} {last}");
                }
            }
        }
        let foreign = evaluate(
            &program,
            |place| if place == NUMBER { 0 } else { 0x4000_0003 },
        );
        assert_eq!(foreign, KILL_PROCESS);
    }
}
