//! Progress for a terminal: a block of lines, drawn over itself.

use super::{Bar, Frame, STEPS};
use crate::human::ellipsis;

/// Slots that get a bar of their own.
const BARS_MAX: usize = 20;
const BAR_WIDTH: usize = 50;

/// What is on the screen.
#[derive(Debug, Default)]
pub struct Screen {
    lines: usize,
}

impl Screen {
    /// The text that replaces what was drawn before. `width` is the terminal's; a line that wraps
    /// would not be found again, so only the last frame shows errors in full.
    pub fn draw(&mut self, frames: &[(String, Frame)], width: usize, is_last: bool) -> String {
        let mut lines = Vec::new();
        for (prefix, frame) in frames {
            lines.push(format!("{prefix}{}", frame.overall));
            // Several services have a line each; one has a line for each slot.
            if frames.len() == 1 && frame.bars.len() <= BARS_MAX {
                lines.extend(frame.bars.iter().flat_map(bar));
            } else {
                let errors = frame.bars.iter().filter(|b| !b.error.is_empty());
                lines.extend(errors.take(BARS_MAX).map(|b| format!("{prefix}  {}: {} ({})", b.name, b.state, b.error)));
            }
            lines.extend(frame.verify.iter().map(|text| format!("{prefix}{text}")));
        }
        let mut out = match self.lines {
            0 => String::new(),
            n => format!("\x1b[{n}A"),
        };
        out.push_str("\x1b[J");
        for line in &lines {
            let line = if is_last { line.clone() } else { ellipsis(line, width.max(20)) };
            out.push_str(&line);
            out.push('\n');
        }
        self.lines = lines.len();
        out
    }
}

/// `1/3: running   [====>    ]`, and below it why the task does not run.
fn bar(bar: &Bar) -> Vec<String> {
    let filled = BAR_WIDTH * bar.step / STEPS;
    let head = if filled > 0 { ">" } else { "" };
    let arrow = format!("{}{head}", "=".repeat(filled.saturating_sub(usize::from(filled == BAR_WIDTH))));
    let mut lines = vec![format!("{}: {:<9} [{arrow:<BAR_WIDTH$}]", bar.name, bar.state)];
    if !bar.error.is_empty() {
        lines.push(format!("     {}", bar.error));
    }
    lines
}
