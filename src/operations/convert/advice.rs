//! What a user can do about an image that is refused.
//!
//! The guest tries the image again with everything allowed, and names the reasons that have to be so
//! that it is used. Most are overridden by `--allow`, and some by an option that says more.

use crate::config::ImageReason;

/// What a user can do about an image, `is_backing` or the input, that is used if all `remedies` are
/// allowed. Nothing if there are none.
pub(super) fn advice(remedies: &[String], is_backing: bool) -> Option<String> {
    let known = remedies.iter().take(ImageReason::OVERRIDABLE.len());
    let reasons: Option<Vec<_>> = known.map(|name| overridable(name)).collect();
    let reasons = reasons?;
    match reasons.as_slice() {
        [] => None,
        [reason] => Some(alone(*reason, is_backing)),
        _ => {
            let options = reasons.iter().map(|reason| option(*reason, is_backing));
            let options: Vec<_> = options.collect();
            Some(format!(
                "to use it all the same, give {}",
                options.join(" and ")
            ))
        }
    }
}

fn overridable(name: &str) -> Option<ImageReason> {
    ImageReason::from_name(name).filter(|reason| reason.is_overridable())
}

/// What helps if there is no other reason.
fn alone(reason: ImageReason, is_backing: bool) -> String {
    match reason {
        ImageReason::BACKING_FILE => "give that file with --backing".to_owned(),
        ImageReason::UNKNOWN_FORMAT if is_backing => {
            "if it is a raw disk, give --allow unknown-format".to_owned()
        }
        ImageReason::UNKNOWN_FORMAT => "if it is a raw disk, give --image-format raw".to_owned(),
        ImageReason::VIRTUAL_SIZE => "allow a larger disk with --max-output-size".to_owned(),
        _ => format!("--allow {} uses it all the same", reason.name()),
    }
}

/// The same as one of several options.
fn option(reason: ImageReason, is_backing: bool) -> String {
    match reason {
        ImageReason::BACKING_FILE => "that file with --backing".to_owned(),
        ImageReason::UNKNOWN_FORMAT if !is_backing => {
            "--image-format raw if it is a raw disk".to_owned()
        }
        ImageReason::VIRTUAL_SIZE => "a larger --max-output-size".to_owned(),
        _ => format!("--allow {}", reason.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice_for(names: &[&str], is_backing: bool) -> String {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        advice(&names, is_backing).unwrap_or_default()
    }

    #[test]
    fn a_backing_file_of_no_known_format_is_allowed_and_not_named_raw() {
        let names = ["unknown-format", "marked-dirty"];
        let backing = advice_for(&names, true);
        assert!(backing.contains("--allow unknown-format"), "{backing}");
        assert!(!backing.contains("--image-format"), "{backing}");
        let input = advice_for(&names, false);
        assert!(input.contains("--image-format raw"), "{input}");
        assert!(!input.contains("--allow unknown-format"), "{input}");
    }

    #[test]
    fn each_remedy_is_the_option_that_helps() {
        for (name, input, backing) in [
            ("backing-file", "with --backing", "with --backing"),
            (
                "unknown-format",
                "--image-format raw",
                "--allow unknown-format",
            ),
            (
                "virtual-size-too-large",
                "with --max-output-size",
                "with --max-output-size",
            ),
            (
                "marked-dirty",
                "--allow marked-dirty uses it all the same",
                "--allow marked-dirty uses it all the same",
            ),
        ] {
            assert!(advice_for(&[name], false).ends_with(input), "{name}");
            assert!(advice_for(&[name], true).ends_with(backing), "{name}");
        }
        let all = ImageReason::OVERRIDABLE;
        let said = advice_for(all, false);
        for part in [
            "--backing and ",
            "--allow several-formats",
            "--max-output-size",
        ] {
            assert!(said.contains(part), "{said}");
        }
        assert!(!said.contains("--allow virtual-size"), "{said}");
    }

    #[test]
    fn there_is_no_advice_where_nothing_helps_or_a_guest_says_nonsense() {
        for names in [
            &[][..],
            &["encrypted"],
            &["marked-dirty", "encrypted"],
            &["x"],
        ] {
            assert_eq!(advice_for(names, false), "", "{names:?}");
        }
        assert!(advice_for(&["no-footer"; 500], false).len() < 300);
    }
}
