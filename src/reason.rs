//! The system's reason, as a message gives it: its words, without the number that the standard
//! library adds to them.

use std::fmt::Display;

/// What stands before the number.
const NUMBER: &str = " (os error ";

/// The words of `error`, and of the errors that it tells of, without `(os error 2)` and the like.
#[must_use]
pub fn reason(error: impl Display) -> String {
    let text = error.to_string();
    let mut words = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, behind)) = rest.split_once(NUMBER) {
        words += before;
        rest = match behind.split_once(')') {
            Some((number, rest)) if is_number(number) => rest,
            _ => {
                words += NUMBER;
                behind
            }
        };
    }
    words + rest
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_number_of_an_error_is_left_out_wherever_it_stands() {
        let missing = io::Error::from_raw_os_error(libc::ENOENT);
        assert_eq!(reason(&missing), "No such file or directory");
        let wrapped = io::Error::other(format!("cannot open it: {missing}; try again"));
        assert_eq!(
            reason(wrapped),
            "cannot open it: No such file or directory; try again"
        );
        assert_eq!(
            reason(kvm_ioctls::Error::new(libc::EINVAL)),
            "Invalid argument"
        );
        assert_eq!(reason(rustix::io::Errno::IO), "Input/output error");
    }

    #[test]
    fn other_text_stays_as_it_is() {
        for text in [
            "",
            "no number",
            " (os error ",
            "(os error x)",
            "a (os error ) b",
        ] {
            assert_eq!(reason(text), text);
        }
    }
}
