//! Draws time over sector size as an SVG with the plotters crate: both axes logarithmic, the VMM's
//! ways and the published figures as lines, the tools as horizontal ones.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use crate::sectors::Series;

const SIZE: (u32, u32) = (960, 620);
/// Sector sizes that the axis names, in bytes.
const NAMED_SECTORS: [f64; 8] = [
    512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0,
];
/// Times that the axis names, in seconds.
const NAMED_TIMES: [f64; 7] = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];
/// Colours that stay apart for colour-blind readers (Okabe and Ito).
const COLOURS: [RGBColor; 11] = [
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 114, 178),
    RGBColor(0, 0, 0),
    RGBColor(0, 158, 115),
    RGBColor(150, 150, 150),
    RGBColor(204, 121, 167),
    // And three dark ones, so that no line has the colour of another.
    RGBColor(120, 60, 20),
    RGBColor(0, 70, 70),
    RGBColor(90, 60, 150),
];

/// How long a line's sample is in the legend: some dashes, so that those of two lines can be told apart.
const SAMPLE: i32 = 90;

/// A plot that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw {path}: {reason}")]
pub(crate) struct PlotError {
    path: String,
    reason: Box<dyn Error>,
}

/// Draws `lines` and, across the whole width, `peers` (name and seconds for a GiB) into `path`.
///
/// # Errors
///
/// The drawing library's or the system's reason.
pub(crate) fn draw(
    path: &Path,
    caption: &str,
    lines: &[Series],
    peers: &[(String, f64)],
) -> Result<(), PlotError> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    draw_on(&area, caption, lines, peers).map_err(|reason| PlotError {
        path: path.display().to_string(),
        reason,
    })
}

fn draw_on(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    caption: &str,
    lines: &[Series],
    peers: &[(String, f64)],
) -> Result<(), Box<dyn Error>> {
    area.fill(&WHITE)?;
    let area = area.margin(10, 10, 10, 20);
    let times = lines.iter().flat_map(|line| &line.points);
    let times = times.map(|(_, time)| *time);
    let times = || times.clone().chain(peers.iter().map(|(_, time)| *time));
    let lowest = times().fold(0.3, f64::min) * 0.7;
    // Room for the legend above the lines' right ends.
    let highest = times().fold(1.0, f64::max) * 3.0;
    let mut chart = ChartBuilder::on(&area)
        .caption(caption, ("sans-serif", 18))
        .x_label_area_size(50)
        .y_label_area_size(70)
        .build_cartesian_2d(
            (460.0..72_000.0_f64)
                .log_scale()
                .with_key_points(NAMED_SECTORS.to_vec()),
            (lowest..highest)
                .log_scale()
                .with_key_points(NAMED_TIMES.to_vec()),
        )?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_desc("sector size of both disks (bytes)")
        .y_desc("seconds a GiB")
        .x_label_formatter(&|sector| format!("{sector:.0}"))
        .y_label_formatter(&|time| format!("{time}"))
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 15))
        .draw()?;

    let mut colours = COLOURS.into_iter().cycle();
    for (line, colour) in lines.iter().zip(colours.by_ref()) {
        chart
            .draw_series(
                LineSeries::new(line.points.clone(), colour.stroke_width(2)).point_size(4),
            )?
            .label(line.name)
            .legend(move |(x, y)| {
                PathElement::new([(x, y), (x + SAMPLE, y)], colour.stroke_width(2))
            });
        let marks = line.points.iter();
        chart.draw_series(marks.map(|point| Circle::new(*point, 4, colour.filled())))?;
    }
    // Wider gaps for each next one, so that a line which lies under another shows through.
    let gaps = (4..).step_by(5);
    for (((name, time), colour), gap) in peers.iter().zip(colours).zip(gaps) {
        let ends = [(460.0, *time), (72_000.0, *time)];
        chart
            .draw_series(DashedLineSeries::new(ends, 7, gap, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| {
                DashedPathElement::new([(x, y), (x + SAMPLE, y)], 7, gap, colour.stroke_width(2))
            });
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .margin(12)
        .legend_area_size(SAMPLE + 10)
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 14))
        .draw()?;
    area.present()?;
    Ok(())
}
