//! The table: each row's measurements, with the ratio to others and the reach.

use super::measure::Measure;
use super::rows::{ROWS, Row};

const OURS: &str = "rswarm";
const HEAD: [&str; 10] = ["what", "who", "n", "min", "median", "p99", "max", "unit", "ours / theirs", "reach"];

/// Everything that was measured, in the order of the rows; rows that nobody was measured for are left out.
pub fn table(measures: &[Measure]) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    for row in ROWS {
        let found: Vec<&Measure> = measures.iter().filter(|measure| measure.key == row.key).collect();
        for (index, measure) in found.iter().enumerate() {
            let is_first = index == 0;
            let is_ours = measure.who == OURS;
            lines.push([
                if is_first { row.title.to_owned() } else { String::new() },
                measure.who.clone(),
                measure.count().to_string(),
                number(measure.min()),
                number(measure.median()),
                number(measure.p99()),
                number(measure.max()),
                measure.unit.clone(),
                if is_ours { ratios(row, measure, measures) } else { String::new() },
                if is_ours { row.reach.to_owned() } else { String::new() },
            ]);
        }
    }
    aligned(&lines)
}

/// Our median by each other's: measured in this run if it was, recorded if not.
fn ratios(row: &Row, ours: &Measure, all: &[Measure]) -> String {
    let is_beside =
        |other: &&Measure| (other.key == row.key && other.who != OURS) || Some(other.key.as_str()) == row.limit;
    let measured: Vec<&Measure> = all.iter().filter(is_beside).collect();
    let mut parts: Vec<String> =
        measured.iter().map(|other| format!("{} {}", ratio(ours.median() / other.median()), other.who)).collect();
    for (who, figure) in row.recorded {
        if !measured.iter().any(|other| other.who == *who) {
            parts.push(format!("{} {who} (recorded)", ratio(ours.median() / figure)));
        }
    }
    parts.join(", ")
}

fn ratio(value: f64) -> String {
    if value < 0.1 { format!("{value:.3} x") } else { format!("{value:.2} x") }
}

fn number(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

/// Columns as wide as their widest word; numbers to the right.
fn aligned(lines: &[[String; HEAD.len()]]) -> String {
    const NUMBERS: std::ops::Range<usize> = 2..7;
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if NUMBERS.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(key: &str, who: &str, values: &[f64]) -> Measure {
        Measure::new(key, who, "ms", values.to_vec()).unwrap()
    }

    #[test]
    fn a_ratio_is_to_the_measured_peer_and_to_the_recorded_one_only_without() {
        let ours = measure("leader-kill", "rswarm", &[250.0, 260.0, 270.0]);
        let etcd = measure("leader-kill", "etcd", &[1300.0]);
        let row = ROWS.iter().find(|row| row.key == "leader-kill").unwrap();
        assert_eq!(ratios(row, &ours, &[ours.clone(), etcd]), "0.20 x etcd, 0.020 x docker (recorded)");
        assert_eq!(
            ratios(row, &ours, std::slice::from_ref(&ours)),
            "0.020 x docker (recorded), 0.16 x etcd (recorded)"
        );
    }

    #[test]
    fn many_clients_are_held_against_the_disk() {
        let (ours, disk) = (measure("raft-256", "rswarm", &[80.0]), measure("disk-64", "disk", &[100.0]));
        let row = ROWS.iter().find(|row| row.key == "raft-256").unwrap();
        assert_eq!(ratios(row, &ours, &[disk, ours.clone()]), "0.80 x disk");
    }

    #[test]
    fn the_table_names_a_row_once_and_has_a_line_for_each_system() {
        let measures =
            [measure("node-kill", "docker", &[20_000.0]), measure("node-kill", "rswarm", &[2_000.0, 3_000.0])];
        let text = table(&measures);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].starts_with("node power cut -> 4 tasks replaced  docker  1  20000"), "{text}");
        assert!(lines[2].starts_with("                                    rswarm  2   2000    2500   3000"), "{text}");
        assert!(lines[2].ends_with("ms    0.12 x docker  p99 < 5000 ms"), "{text}");
    }

    #[test]
    fn every_key_is_there_once() {
        for (index, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..index].iter().all(|other| other.key != row.key), "{}", row.key);
        }
    }
}
