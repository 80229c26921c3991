//! Markdown tables, and what a measurement says about a target.

use std::fmt::Write;

use crate::figures::{mebibytes, seconds};
use crate::run::Measured;

/// A Markdown table: the columns' heads, then its rows.
pub(crate) fn markdown<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> String {
    let line = |cells: &[String]| {
        // A cell must not end early at what is in it.
        let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut text = line(&heads.map(str::to_owned));
    text.push_str(&line(&[(); N].map(|()| "---".to_owned())));
    for row in rows {
        text.push_str(&line(row));
    }
    text
}

/// A figure that must not exceed a limit.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) case: String,
    /// What the figure is compared with; empty if it is absolute.
    pub(crate) of: String,
    pub(crate) limit: f64,
    /// `None` if it could not be measured.
    pub(crate) figure: Option<f64>,
    /// Turns the limit and the figure into text with a unit.
    pub(crate) unit: fn(f64) -> String,
}

impl Target {
    /// A target for a ratio.
    pub(crate) fn ratio(case: &str, of: &str, limit: f64, figure: Option<f64>) -> Self {
        Self::absolute(case, limit, figure, |value| format!("{value:.2}")).of(of)
    }

    /// A target for a figure with a unit.
    pub(crate) fn absolute(
        case: &str,
        limit: f64,
        figure: Option<f64>,
        unit: fn(f64) -> String,
    ) -> Self {
        Self {
            case: case.to_owned(),
            of: String::new(),
            limit,
            figure: figure.filter(|figure| figure.is_finite()),
            unit,
        }
    }

    fn of(mut self, of: &str) -> Self {
        of.clone_into(&mut self.of);
        self
    }

    /// Met, missed and by how much, or not measured.
    pub(crate) fn verdict(&self) -> String {
        match self.figure {
            None => "not measured".to_owned(),
            Some(figure) if figure <= self.limit => "met".to_owned(),
            Some(figure) => match (figure / self.limit - 1.0) * 100.0 {
                0.0..0.5 => "**missed** by less than 1 %".to_owned(),
                percent => format!("**missed** by {percent:.0} %"),
            },
        }
    }

    fn row(&self) -> [String; 4] {
        let of = if self.of.is_empty() {
            String::new()
        } else {
            format!(" of {}", self.of)
        };
        [
            self.case.clone(),
            format!("at most {}{of}", (self.unit)(self.limit)),
            self.figure.map_or_else(|| "–".to_owned(), self.unit),
            self.verdict(),
        ]
    }
}

/// All targets as a table.
pub(crate) fn targets(targets: &[Target]) -> String {
    let rows: Vec<_> = targets.iter().map(Target::row).collect();
    markdown(["case", "must be", "measured", "verdict"], &rows)
}

/// What every command cost, and the command lines.
pub(crate) fn measurements(all: &[Measured]) -> String {
    let rows: Vec<_> = all
        .iter()
        .map(|measured| {
            let (low, high) = measured.range();
            [
                measured.case.name.clone(),
                seconds(measured.wall()),
                format!("{} to {}", seconds(low), seconds(high)),
                seconds(measured.cpu()),
                mebibytes(measured.peak()),
                measured
                    .exits()
                    .map_or_else(|| "–".to_owned(), |exits| format!("{exits:.0}")),
            ]
        })
        .collect();
    let heads = ["case", "median", "range", "CPU", "peak memory", "exits"];
    let mut text = markdown(heads, &rows);
    text.push_str("\nThe VMM is also given `--stats-file FILE`, for the number of exits.\n\n```\n");
    for Measured { case, .. } in all {
        let beside = if case.busy {
            "   # beside a busy loop on one core"
        } else {
            ""
        };
        let _ = writeln!(text, "{}{beside}", case.program.line());
    }
    text.push_str("```\n");
    text
}
