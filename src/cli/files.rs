//! What the arguments are that are no options: files, each in its place.

use std::path::PathBuf;

use super::{not_valid, paths, superfluous};

/// The two files of an operation, which reads the one and writes the other: by their options, or
/// else in their place, and what is left of the arguments. `names` are what the help text calls
/// them.
///
/// # Errors
///
/// Which of them is missing or not valid, and what would be right.
pub(super) fn pair<'a>(
    names: [&str; 2],
    options: [Option<PathBuf>; 2],
    positionals: &'a [String],
) -> Result<(PathBuf, PathBuf, &'a [String]), String> {
    let [source, target] = names;
    let by_options = format!("--input {source} --output {target}");
    match (options, positionals) {
        ([Some(input), Some(output)], rest) => Ok((input, output, rest)),
        ([Some(_), None], _) => Err(format!("--output is missing: give {by_options}")),
        ([None, Some(_)], _) => Err(format!("--input is missing: give {by_options}")),
        ([None, None], []) => Err(format!(
            "{source} and {target} are missing: give both, or {by_options}"
        )),
        ([None, None], [_]) => Err(format!("{target} is missing: give {source} and {target}")),
        ([None, None], [input, output, rest @ ..]) => Ok((
            positional(source, input, paths::disk)?,
            positional(target, output, paths::disk)?,
            rest,
        )),
    }
}

/// The input, the output and the guest of a copy. Beside `--input` and `--output` a lone argument
/// is the guest, and so is a third one without them.
pub(super) fn of_a_copy(
    input: Option<PathBuf>,
    output: Option<PathBuf>,
    positionals: &[String],
) -> Result<(PathBuf, PathBuf, Option<PathBuf>), String> {
    let usage = match input {
        Some(_) => "vmm [OPTIONS] --input SRC --output DST [GUEST]",
        None => "vmm [OPTIONS] SRC DST [GUEST]",
    };
    let (input, output, rest) = pair(["SRC", "DST"], [input, output], positionals)?;
    if let [_, surplus, ..] = rest {
        return Err(superfluous(surplus, usage));
    }
    let guest = rest.first();
    let guest = guest.map(|guest| positional("GUEST", guest, paths::file));
    Ok((input, output, guest.transpose()?))
}

/// Reads the argument that the help text calls `name`.
///
/// # Errors
///
/// Why it is not valid, and what would be right.
pub(super) fn positional(
    name: &str,
    text: &str,
    read: fn(&str) -> Result<PathBuf, String>,
) -> Result<PathBuf, String> {
    read(text).map_err(|right| not_valid(text, name, &right))
}
