//! The screen of a terminal as an SVG: a dark window with a border, which reads well on a dark and
//! on a light page.

use std::fmt::Write;

use vt100::{Cell, Color, Screen};

/// Of one character, in pixels.
const WIDTH: u32 = 8;
const HEIGHT: u32 = 18;
/// Around the text.
const MARGIN: u32 = 16;
const BACKGROUND: &str = "#1d2129";
const BORDER: &str = "#5b6472";
const TEXT: &str = "#d5dae3";
const GREEN: &str = "#7ecf8b";
const WHITE: &str = "#ffffff";

/// Draws all lines down to the last one with something in it.
pub(crate) fn draw(screen: &Screen) -> String {
    let (_, columns) = screen.size();
    let last = screen.rows(0, columns.get()).collect::<Vec<_>>();
    let last = last.iter().rposition(|line| !line.is_empty());
    let rows = u16::try_from(last.map_or(0, |row| row + 1)).unwrap();
    let width = u32::from(columns.get()) * WIDTH + 2 * MARGIN;
    let height = u32::from(rows) * HEIGHT + 2 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
         <title>Three copies in a terminal</title>\n\
         <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"{BACKGROUND}\" \
         stroke=\"{BORDER}\"/>\n\
         <g font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" \
         font-size=\"13\" xml:space=\"preserve\">\n",
        width - 1,
        height - 1,
    );
    for row in 0..rows {
        for run in runs(screen, row) {
            run.draw(row, &mut svg);
        }
    }
    svg + "</g>\n</svg>\n"
}

/// Neighbours that look alike.
struct Cells {
    column: u32,
    text: String,
    colour: &'static str,
}

/// The runs of a line, without the blanks at its end.
fn runs(screen: &Screen, row: u16) -> Vec<Cells> {
    let (_, columns) = screen.size();
    let mut runs: Vec<Cells> = Vec::new();
    for column in 0..columns.get() {
        let Some(cell) = screen.cell(row, column) else {
            continue;
        };
        let text = if cell.has_contents() {
            cell.contents()
        } else {
            " "
        };
        match runs.last_mut() {
            Some(run) if run.colour == colour(cell) => run.text += text,
            _ => runs.push(Cells {
                column: column.into(),
                text: text.to_owned(),
                colour: colour(cell),
            }),
        }
    }
    runs.retain(|run| !run.text.trim().is_empty());
    if let Some(last) = runs.last_mut() {
        last.text.truncate(last.text.trim_end().len());
    }
    runs
}

fn colour(cell: &Cell) -> &'static str {
    match cell.fgcolor() {
        Color::Idx(2) => GREEN,
        _ if cell.bold() => WHITE,
        _ => TEXT,
    }
}

impl Cells {
    /// The length is given, so that columns stay columns in whatever font there is.
    fn draw(&self, row: u16, svg: &mut String) {
        let count = u32::try_from(self.text.chars().count()).unwrap();
        let escaped = self.text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" textLength=\"{}\" fill=\"{}\">{}</text>",
            MARGIN + self.column * WIDTH,
            MARGIN + u32::from(row) * HEIGHT + 13,
            count * WIDTH,
            self.colour,
            escaped,
        );
    }
}
