//! Throughput and latency over depth, as SVG.

use crate::options::Options;
use crate::tally::Measured;
use plotters::prelude::*;
use std::error::Error;
use std::ops::Range;

type Coordinates =
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>;

/// A line: its name, its colour, its points.
struct Line {
    name: &'static str,
    color: RGBColor,
    points: Vec<(f64, f64)>,
}

/// The picture.
pub fn draw(options: &Options, runs: &[Measured]) -> Result<String, Box<dyn Error + Send + Sync>> {
    let line = |name, color, value: &dyn Fn(&Measured) -> f64| {
        // Depths go up by factors.
        let mut points: Vec<_> = runs.iter().map(|run| (f64::from(run.depth).log2(), value(run))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Line { name, color, points }
    };
    let throughput = [line("IOPS", BLUE, &|run| run.tally.both().ios as f64 / run.seconds())];
    let latency = |name, color, percentile| {
        line(name, color, &move |run| {
            run.tally.both().latency.value_at_percentile(percentile) as f64 / 1000.0
        })
    };
    let latencies = [latency("p50", GREEN, 50.0), latency("p99", RED, 99.0)];

    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (960, 420)).into_drawing_area();
        area.fill(&WHITE)?;
        let title = format!(
            "{} of {} bytes, {} jobs, backend {}{}",
            options.rw.name(),
            options.bs,
            options.numjobs,
            options.backend.name,
            if options.direct { ", O_DIRECT" } else { "" }
        );
        let area = area.titled(&title, ("sans-serif", 18))?;
        let (left, right) = area.split_horizontally(480);
        panel(&left, "operations per second", &throughput)?;
        panel(&right, "latency in µs", &latencies)?;
        area.present()?;
    }
    Ok(svg)
}

/// One diagram.
fn panel(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    what: &str,
    lines: &[Line],
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let depths = bounds(points().map(|point| point.0));
    let top = points().map(|point| point.1).fold(1.0, f64::max);
    let mut builder = ChartBuilder::on(area);
    builder.margin(12).x_label_area_size(36).y_label_area_size(72);
    let mut chart: ChartContext<'_, _, Coordinates> = builder.build_cartesian_2d(depths, 0.0..1.1 * top)?;
    chart
        .configure_mesh()
        .x_desc("depth")
        .y_desc(what)
        .x_label_formatter(&|log| format!("{:.0}", log.exp2()))
        .y_label_formatter(&|value| format!("{value:.0}"))
        .draw()?;
    for Line { name, color, points } in lines {
        let color = *color;
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    Ok(())
}

/// From the least to the greatest, with some room even if they are the same.
fn bounds(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (lo, hi) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(v), hi.max(v)));
    if lo > hi { 0.0..1.0 } else { lo - 0.25..hi + 0.25 }
}
