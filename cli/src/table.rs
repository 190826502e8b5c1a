//! Columns as Docker aligns them: at least ten wide, three spaces apart, the last one free.

const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Aligns lines whose cells are separated by tabs. A line's last cell is not padded.
pub fn align(lines: &[String]) -> String {
    let rows: Vec<Vec<&str>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        for (index, cell) in row.iter().take(row.len().saturating_sub(1)).enumerate() {
            let width = (cell.chars().count() + PADDING).max(MIN_WIDTH);
            match widths.get_mut(index) {
                Some(known) => *known = width.max(*known),
                None => widths.push(width),
            }
        }
    }
    let mut out = String::new();
    for row in rows {
        let last = row.len().saturating_sub(1);
        for (index, cell) in row.into_iter().enumerate() {
            out.push_str(cell);
            if index < last {
                let fill = widths.get(index).map_or(0, |w| w.saturating_sub(cell.chars().count()));
                out.extend(std::iter::repeat_n(' ', fill));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_ten_wide_at_least_and_three_spaces_apart() {
        let lines = ["ID\tNAME\tPORTS", "abcdefghijkl\tweb\t*:80->80/tcp", "x\ta-longer-name\t"].map(str::to_owned);
        assert_eq!(
            align(&lines),
            "ID             NAME            PORTS\n\
             abcdefghijkl   web             *:80->80/tcp\n\
             x              a-longer-name   \n"
        );
    }
}
