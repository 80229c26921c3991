//! The processor that the guest finds: what CPUID says of it (Intel SDM volume 2, "CPUID"; KVM API,
//! section 4.20).
//!
//! It says what a program in ring 3 can use here, and nothing else: no state that XSAVE would have
//! to save is switched on, and there is no APIC. So a guest finds the same kind of processor on all
//! hosts. KVM's own list has some 60 entries, for each of which the host's CPUID is executed twice;
//! where the host is a virtual machine itself that took longer than to make the VM.

use std::arch::x86_64::{__cpuid_count, CpuidResult};

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Leaf 1, ECX: SSE3, PCLMULQDQ, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, RDRAND.
const FEATURES_ECX: u32 = bits(&[0, 1, 9, 13, 19, 20, 22, 23, 25, 30]);
/// Leaf 1, ECX: this is a virtual machine. The host is not asked for that.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX: FPU, PSE, TSC, MSR, PAE, CMPXCHG8B, PGE, CMOV, CLFLUSH, MMX, FXSR, SSE, SSE2.
const FEATURES_EDX: u32 = bits(&[0, 3, 4, 5, 6, 8, 13, 15, 19, 23, 24, 25, 26]);
/// Leaf 1, EBX: the size of a line for CLFLUSH. The rest is about APICs.
const CLFLUSH_SIZE: u32 = 0xff00;
/// Leaf 7, EBX: BMI1, BMI2, REP MOVSB that is fast, RDSEED, ADX, SHA.
const EXTENDED_EBX: u32 = bits(&[3, 8, 9, 18, 19, 29]);
/// Leaf 7, EDX: short REP MOVSB that is fast.
const EXTENDED_EDX: u32 = bits(&[4]);
/// Leaf 0x8000_0001, ECX: LAHF, LZCNT.
const AMD_ECX: u32 = bits(&[0, 5]);
/// Leaf 0x8000_0001, EDX: pages that cannot be executed, long mode.
const AMD_EDX: u32 = bits(&[20, 29]);
/// Leaf 0x8000_0008, EAX: how many bits addresses have.
const ADDRESS_BITS: u32 = 0xffff;

const BASIC: u32 = 0;
const FEATURES: u32 = 1;
const EXTENDED: u32 = 7;
const AMD: u32 = 0x8000_0000;
const AMD_FEATURES: u32 = 0x8000_0001;
const ADDRESSES: u32 = 0x8000_0008;

const fn bits(numbers: &[u32]) -> u32 {
    let (mut word, mut next) = (0, 0);
    while next < numbers.len() {
        word |= 1 << numbers[next];
        next += 1;
    }
    word
}

/// What CPUID says to the guest, of the processor that runs this.
///
/// # Errors
///
/// E2BIG, as KVM would say itself, if there are more entries than it takes.
pub(super) fn cpuid() -> Result<CpuId, kvm_ioctls::Error> {
    let too_many = |_| kvm_ioctls::Error::new(libc::E2BIG);
    CpuId::from_entries(&entries(on_host)).map_err(too_many)
}

/// What CPUID says of a leaf and a subleaf on the host.
// The function of the standard library became safe only after the oldest Rust that is promised.
#[allow(unused_unsafe)]
fn on_host(leaf: u32, subleaf: u32) -> CpuidResult {
    // SAFETY: every x86-64 processor has the instruction, and it reads nothing but registers.
    unsafe { __cpuid_count(leaf, subleaf) }
}

/// The entries, where `host` says what a leaf and a subleaf hold on the host.
fn entries(host: impl Fn(u32, u32) -> CpuidResult) -> [kvm_cpuid_entry2; 6] {
    let vendor = host(BASIC, 0);
    let none = CpuidResult {
        eax: 0,
        ebx: 0,
        ecx: 0,
        edx: 0,
    };
    let features = host(FEATURES, 0);
    let extended = match vendor.eax >= EXTENDED {
        true => host(EXTENDED, 0),
        false => none,
    };
    // Every processor with long mode has these.
    let (amd, addresses) = (host(AMD_FEATURES, 0), host(ADDRESSES, 0));
    [
        entry(
            BASIC,
            CpuidResult {
                eax: EXTENDED,
                ..vendor
            },
        ),
        entry(
            FEATURES,
            CpuidResult {
                eax: features.eax,
                ebx: features.ebx & CLFLUSH_SIZE,
                ecx: features.ecx & FEATURES_ECX | HYPERVISOR,
                edx: features.edx & FEATURES_EDX,
            },
        ),
        kvm_cpuid_entry2 {
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            ..entry(
                EXTENDED,
                CpuidResult {
                    ebx: extended.ebx & EXTENDED_EBX,
                    edx: extended.edx & EXTENDED_EDX,
                    ..none
                },
            )
        },
        entry(
            AMD,
            CpuidResult {
                eax: ADDRESSES,
                ..none
            },
        ),
        entry(
            AMD_FEATURES,
            CpuidResult {
                ecx: amd.ecx & AMD_ECX,
                edx: amd.edx & AMD_EDX,
                ..none
            },
        ),
        entry(
            ADDRESSES,
            CpuidResult {
                eax: addresses.eax & ADDRESS_BITS,
                ..none
            },
        ),
    ]
}

fn entry(function: u32, result: CpuidResult) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function,
        eax: result.eax,
        ebx: result.ebx,
        ecx: result.ecx,
        edx: result.edx,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything(_: u32, _: u32) -> CpuidResult {
        let all = u32::MAX;
        CpuidResult {
            eax: all,
            ebx: all,
            ecx: all,
            edx: all,
        }
    }

    #[test]
    fn nothing_is_promised_that_must_be_switched_on_first() {
        let entries = entries(everything);
        let of = |function| entries.iter().find(|entry| entry.function == function);
        let (xsave, osxsave, avx, fma, f16c) = (1 << 26, 1 << 27, 1 << 28, 1 << 12, 1 << 29);
        let needs_xsave = xsave | osxsave | avx | fma | f16c;
        assert_eq!(of(FEATURES).map(|entry| entry.ecx & needs_xsave), Some(0));
        // AVX2 and all of AVX-512 that this register has.
        let wide = 1 << 5 | 1 << 16 | 1 << 17 | 1 << 21 | 1 << 30 | 1 << 31;
        assert_eq!(of(EXTENDED).map(|entry| entry.ebx & wide), Some(0));
        // Without EFER.SCE the instruction SYSCALL faults.
        assert_eq!(of(AMD_FEATURES).map(|entry| entry.edx & 1 << 11), Some(0));
    }

    #[test]
    fn each_leaf_says_what_a_program_in_ring_3_can_use_and_no_more() {
        let entries = entries(everything);
        let of = |function| {
            let found = entries.iter().find(|entry| entry.function == function);
            found.map(|entry| [entry.eax, entry.ebx, entry.ecx, entry.edx])
        };
        let all = u32::MAX;
        // The highest leaves are those that there are; vendor and model are the host's.
        assert_eq!(of(BASIC), Some([EXTENDED, all, all, all]));
        assert_eq!(of(AMD), Some([ADDRESSES, 0, 0, 0]));
        let features = FEATURES_ECX | 1 << 31;
        assert_eq!(of(FEATURES), Some([all, 0xff00, features, FEATURES_EDX]));
        assert_eq!(of(EXTENDED), Some([0, EXTENDED_EBX, 0, EXTENDED_EDX]));
        assert_eq!(of(AMD_FEATURES), Some([0, 0, AMD_ECX, AMD_EDX]));
        assert_eq!(of(ADDRESSES), Some([0xffff, 0, 0, 0]));
        // Leaf 7 alone has further leaves below it.
        for entry in &entries {
            let has_subleaves = entry.flags == KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
            assert_eq!(has_subleaves, entry.function == EXTENDED);
        }
    }

    #[test]
    fn what_is_kept_is_what_the_page_about_the_first_instruction_shows() {
        let page = include_str!("../../docs/boot.md");
        for (leaf, register, mask) in [
            (FEATURES, "EBX", CLFLUSH_SIZE),
            (FEATURES, "ECX", FEATURES_ECX),
            (FEATURES, "EDX", FEATURES_EDX),
            (EXTENDED, "EBX", EXTENDED_EBX),
            (EXTENDED, "EDX", EXTENDED_EDX),
            (AMD_FEATURES, "ECX", AMD_ECX),
            (AMD_FEATURES, "EDX", AMD_EDX),
            (ADDRESSES, "EAX", ADDRESS_BITS),
        ] {
            let row = format!("| {leaf:#x} | {register} | {mask:#x} |");
            assert!(page.contains(&row), "{row}");
        }
    }

    #[test]
    fn what_the_host_lacks_is_not_promised() {
        let old = |leaf, _| match leaf {
            // There is no leaf 7. A processor answers with the content of another leaf where one is
            // absent.
            BASIC => CpuidResult {
                eax: 6,
                ..everything(0, 0)
            },
            EXTENDED => everything(0, 0),
            _ => CpuidResult {
                eax: 0x3030,
                ebx: 0,
                ecx: 0,
                edx: 0,
            },
        };
        for entry in entries(old) {
            let promised = match entry.function {
                BASIC => continue,
                FEATURES => entry.ecx & !HYPERVISOR | entry.edx,
                _ => entry.ebx | entry.ecx | entry.edx,
            };
            assert_eq!(promised, 0, "{:#x}", entry.function);
        }
    }

    #[test]
    fn this_host_has_what_every_guest_is_built_for() {
        let entries = entries(on_host);
        let find = |function| entries.iter().find(|entry| entry.function == function);
        let (fxsr, sse, sse2) = (1 << 24, 1 << 25, 1 << 26);
        let built_for = fxsr | sse | sse2;
        assert_eq!(
            find(FEATURES).map(|entry| entry.edx & built_for),
            Some(built_for)
        );
        assert_eq!(find(AMD_FEATURES).map(|entry| entry.edx), Some(AMD_EDX));
        assert!(cpuid().is_ok());
    }
}
