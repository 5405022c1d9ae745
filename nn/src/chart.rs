//! Curves over steps as an SVG file, through plotters.
//!
//! Knows nothing of training: it draws the curves it is given. Text is left to the viewer's fonts, so nothing of the
//! machine it runs on enters the file.

use std::ops::Range;
use std::path::Path;

use plotters::prelude::*;

use crate::error::{Error, Result};
use crate::files::write_atomically;

/// One curve of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// What the legend calls it.
    pub name: String,
    /// Its points as (step, value), by rising step; those that are not finite are left out.
    pub points: Vec<(u64, f64)>,
}

/// The chart as the text of an SVG file, 900 × 540 pixels.
///
/// # Errors
/// [`Error::Configuration`] if the drawing fails, which it has no reason to.
pub fn draw(title: &str, y_name: &str, curves: &[Curve]) -> Result<String> {
    let mut svg = String::new();
    draw_into(&mut svg, title, y_name, curves).map_err(|e| Error::Configuration(format!("chart {title:?}: {e}")))?;
    Ok(svg)
}

/// Writes the chart to `path`, under another name first.
///
/// # Errors
/// [`Error::File`] if the file cannot be written.
pub fn write(path: &Path, title: &str, y_name: &str, curves: &[Curve]) -> Result<()> {
    write_atomically(path, draw(title, y_name, curves)?.as_bytes())
}

const COLOURS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44), RGBColor(148, 103, 189)];

type DrawError<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

fn draw_into<'a>(
    svg: &'a mut String,
    title: &str,
    y_name: &str,
    curves: &[Curve],
) -> std::result::Result<(), DrawError<'a>> {
    let finite: Vec<Vec<(f64, f64)>> = curves
        .iter()
        .map(|c| c.points.iter().filter(|p| p.1.is_finite()).map(|&(x, y)| (x as f64, y)).collect())
        .collect();
    let x_range = span(finite.iter().flatten().map(|p| p.0), 0.0);
    let y_range = span(finite.iter().flatten().map(|p| p.1), 0.05);

    let area = SVGBackend::with_string(svg, (900, 540)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 22))
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(62)
        .build_cartesian_2d(x_range, y_range)?;
    chart
        .configure_mesh()
        .x_desc("step")
        .y_desc(y_name)
        .axis_desc_style(("sans-serif", 16))
        .label_style(("sans-serif", 13))
        .light_line_style(RGBColor(240, 240, 240))
        .bold_line_style(RGBColor(220, 220, 220))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.2}"))
        .draw()?;
    for (index, (curve, points)) in curves.iter().zip(finite).enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        // A curve of one point would be invisible as a line.
        if let [point] = points[..] {
            chart.draw_series([Circle::new(point, 3, colour.filled())])?;
        }
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(&curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], colour.stroke_width(2)));
    }
    if !curves.is_empty() {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(RGBColor(160, 160, 160))
            .label_font(("sans-serif", 15))
            .draw()?;
    }
    area.present()
}

/// The values' range, widened by a share of it, and never empty.
fn span(values: impl Iterator<Item = f64>, margin: f64) -> Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    match high - low {
        width if width.is_finite() && width > 0.0 => low - margin * width..high + margin * width,
        0.0 => low - 0.5..high + 0.5,
        // No finite value at all.
        _ => 0.0..1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_legend_and_axes_are_in_the_svg() {
        let train = Curve { name: "train".into(), points: (0..200).map(|s| (s, 4.0 / (1.0 + s as f64))).collect() };
        let val = Curve { name: "validation".into(), points: vec![(0, 4.1), (100, f64::NAN), (199, 0.5)] };
        let svg = draw("gpt <cpu>", "loss (nats per token)", &[train, val]).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for text in ["train", "validation", "step", "loss (nats per token)", "gpt &lt;cpu&gt;"] {
            assert!(svg.contains(text), "{text} is missing");
        }
        assert!(svg.matches("<polyline").count() >= 2);
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn no_curve_one_point_and_nothing_finite_can_be_drawn() {
        assert!(draw("", "y", &[]).is_ok());
        for points in [vec![], vec![(3, 1.0)], vec![(0, f64::NAN), (1, f64::INFINITY)]] {
            assert!(draw("t", "y", &[Curve { name: "c".into(), points }]).is_ok());
        }
    }
}
