//! Progress for files and pipes: a line for each change.

use std::collections::BTreeMap;

use super::Frame;

/// What was printed before.
#[derive(Debug, Default)]
pub struct Plain {
    overall: String,
    bars: BTreeMap<String, (String, String)>,
    is_verifying: bool,
    is_converged: bool,
}

impl Plain {
    /// The lines that are new in a frame, each with `prefix` before it.
    pub fn lines(&mut self, frame: &Frame, prefix: &str) -> String {
        let mut out = String::new();
        let mut line = |text: &str| {
            out.push_str(prefix);
            out.push_str(text);
            out.push('\n');
        };
        if !frame.overall.is_empty() && frame.overall != self.overall {
            line(&frame.overall);
            self.overall.clone_from(&frame.overall);
        }
        for bar in &frame.bars {
            let shown = (bar.state.clone(), bar.error.clone());
            if self.bars.get(&bar.name) != Some(&shown) {
                let error = if bar.error.is_empty() { String::new() } else { format!(" ({})", bar.error) };
                line(&format!("{}: {}{error}", bar.name, bar.state));
                self.bars.insert(bar.name.clone(), shown);
            }
        }
        match &frame.verify {
            // The countdown is for those who watch; a file gets its start and its end.
            Some(text) if !self.is_verifying || (text.ends_with("converged") && !self.is_converged) => line(text),
            _ => {}
        }
        // Said once: a service waits here for its slower neighbours.
        self.is_converged = frame.verify.as_ref().is_some_and(|text| text.ends_with("converged"));
        self.is_verifying = frame.verify.is_some();
        out
    }
}
