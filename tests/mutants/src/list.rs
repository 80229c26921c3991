//! The list of changes, as `cargo mutants --list --json` prints it.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use serde_json::Value;

use crate::Result;

/// A change of the code at one place.
#[derive(Debug, Clone)]
pub struct Change {
    /// Its number among those of its crate.
    pub id: usize,
    /// Where it is and what it does, for a person.
    pub name: String,
    /// The file, from the root of the workspace.
    pub file: String,
    pub genre: Genre,
    /// Bytes of the file.
    pub place: Range<usize>,
    /// What comes there instead.
    pub replacement: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Genre {
    FnValue,
    BinaryOperator,
    UnaryOperator,
    MatchArm,
    MatchArmGuard,
    StructField,
}

/// The changes of one crate.
pub struct Crate {
    pub package: String,
    /// Its folder, from the root of the workspace, and the root of its library.
    pub folder: String,
    pub library: String,
    pub changes: Vec<Change>,
    /// The text of each file that is to be changed, the library's root among them.
    pub texts: BTreeMap<String, String>,
}

/// Reads `list`, the changes of the workspace at `root`, a crate after the other.
pub fn read(list: &Path, root: &Path) -> Result<Vec<Crate>> {
    let list: Value = serde_json::from_str(&fs::read_to_string(list)?)?;
    let mut crates: BTreeMap<String, Crate> = BTreeMap::new();
    for entry in list.as_array().ok_or("the list of changes is no list")? {
        let text = |name: &str| -> Result<String> {
            let value = entry[name].as_str();
            Ok(value.ok_or(format!("a change has no {name}"))?.to_owned())
        };
        let (package, file) = (text("package")?, text("file")?);
        let (before, _) = file.split_once("src/").ok_or("a file outside src")?;
        let known = crates.entry(package.clone()).or_insert_with(|| Crate {
            package,
            folder: before.to_owned(),
            library: format!("{before}src/lib.rs"),
            changes: Vec::new(),
            texts: BTreeMap::new(),
        });
        for file in [&file, &known.library] {
            if !known.texts.contains_key(file) {
                let contents = fs::read_to_string(root.join(file))?;
                known.texts.insert(file.clone(), contents);
            }
        }
        let contents = &known.texts[&file];
        let place =
            byte(contents, &entry["span"]["start"])?..byte(contents, &entry["span"]["end"])?;
        let genre = text("genre")?;
        known.changes.push(Change {
            id: known.changes.len(),
            name: text("name")?,
            genre: Genre::named(&genre).ok_or(format!("an unknown kind of change, {genre}"))?,
            place,
            replacement: text("replacement")?,
            file,
        });
    }
    Ok(crates.into_values().collect())
}

impl Genre {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "FnValue" => Self::FnValue,
            "BinaryOperator" => Self::BinaryOperator,
            "UnaryOperator" => Self::UnaryOperator,
            "MatchArm" => Self::MatchArm,
            "MatchArmGuard" => Self::MatchArmGuard,
            "StructField" => Self::StructField,
            _ => return None,
        })
    }
}

/// The byte that a line and a column mean, both counted from 1, the column in characters.
fn byte(text: &str, at: &Value) -> Result<usize> {
    let number = |name: &str| -> Result<usize> {
        let number = at[name].as_u64().ok_or("a place without a number")?;
        Ok(usize::try_from(number)?)
    };
    let (line, column) = (number("line")?, number("column")?);
    let lines = text.split_inclusive('\n').take(line - 1);
    let start: usize = lines.map(str::len).sum();
    let rest = &text[start..];
    let within = rest.char_indices().nth(column - 1);
    Ok(start + within.map_or(rest.len(), |(at, _)| at))
}
