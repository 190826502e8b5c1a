//! Rust source as the rules see it: code without comments and literals, and which lines are tests.

use std::path::Path;

/// A source file, with comments, strings and characters blanked out. Lines and columns stay where they were.
pub struct Source {
    code: String,
    /// One flag per line.
    tests: Vec<bool>,
}

impl Source {
    /// Reads `text`; `path` decides whether the whole file is a test.
    pub fn parse(path: &Path, text: &str) -> Source {
        let code = blank(text);
        let mut tests = vec![is_test_file(path); code.lines().count()];
        for (from, to) in test_items(&code) {
            let (first, last) = (line_at(&code, from), line_at(&code, to));
            for flag in tests.iter_mut().take(last).skip(first - 1) {
                *flag = true;
            }
        }
        Source { code, tests }
    }

    /// The places of `word`, standing by itself: line number and whether it is in a test.
    pub fn uses(&self, word: &str) -> Vec<(usize, bool)> {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        self.code
            .match_indices(word)
            .filter(|(at, _)| {
                let before = self.code[..*at].chars().next_back();
                let after = self.code[at + word.len()..].chars().next();
                let starts = !word.starts_with(is_name) || !before.is_some_and(is_name);
                starts && (!word.ends_with(is_name) || !after.is_some_and(is_name))
            })
            .map(|(at, _)| self.place(at))
            .collect()
    }

    /// Each attribute's text (without its brackets), line, and whether it is in a test.
    pub fn attributes(&self) -> Vec<(&str, usize, bool)> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices('#') {
            let rest = self.code[at + 1..].strip_prefix('!').unwrap_or(&self.code[at + 1..]);
            let Some(body) = rest.trim_start().strip_prefix('[') else { continue };
            let (line, is_test) = self.place(at);
            found.push((&body[..closing(body, '[', ']')], line, is_test));
        }
        found
    }

    /// How many lines are not tests.
    pub fn lines_outside_tests(&self) -> usize {
        self.tests.iter().filter(|is_test| !**is_test).count()
    }

    fn place(&self, at: usize) -> (usize, bool) {
        let line = line_at(&self.code, at);
        (line, self.tests.get(line - 1).copied().unwrap_or(false))
    }
}

fn line_at(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// A test by its place: a tests, benches or fuzz folder, or a module file called tests.
fn is_test_file(path: &Path) -> bool {
    let folder = path.components().any(|c| ["tests", "benches", "fuzz"].iter().any(|n| c.as_os_str() == *n));
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    folder || stem == "tests" || stem == "testing" || stem.ends_with("_tests")
}

/// The byte ranges of items under `#[cfg(test)]`.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("#[cfg(") {
        let body = &code[at + 2..];
        let condition = &body[..closing(body, '[', ']')];
        let is_test = condition.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "test");
        if !is_test || condition.contains("not(test)") {
            continue;
        }
        let from = at + 2 + condition.len() + 1;
        found.push((at, from + item_end(&code[from.min(code.len())..])));
    }
    found
}

/// Where the item that starts here ends: at its `;`, or with its block.
fn item_end(code: &str) -> usize {
    let mut depth = 0_i32;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ';' if depth == 0 => return at,
            '{' if depth == 0 => return at + 1 + closing(&code[at + 1..], '{', '}'),
            _ => {}
        }
    }
    code.len()
}

/// The offset of the bracket that closes one opened just before `code`.
fn closing(code: &str, open: char, close: char) -> usize {
    let mut depth = 1_u32;
    for (at, c) in code.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                return at;
            }
        }
    }
    code.len()
}

/// Replaces what is inside comments, strings and characters by spaces.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest, 1),
            'r' | 'b' | 'c' if !(before.is_alphanumeric() || before == '_') => prefixed(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if length == 0 {
            out.push(c);
            before = c;
            rest = &rest[c.len_utf8()..];
        } else {
            out.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            before = ' ';
            rest = &rest[length..];
        }
    }
    out
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_u32, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of an ordinary string, its opening quote ending at `from`.
fn string(rest: &str, from: usize) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest[from..].char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return from + at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a literal that begins with b, c or r; 0 if this is a name.
fn prefixed(rest: &str) -> usize {
    let letters = rest.find(|c| !"brc".contains(c)).unwrap_or(rest.len());
    let (prefix, tail) = rest.split_at(letters);
    if !["r", "b", "c", "br", "cr"].contains(&prefix) {
        return 0;
    }
    if prefix.ends_with('r') {
        let hashes = tail.len() - tail.trim_start_matches('#').len();
        if !tail[hashes..].starts_with('"') {
            return 0;
        }
        let end = format!("\"{}", "#".repeat(hashes));
        let from = letters + hashes + 1;
        return rest[from..].find(&end).map_or(rest.len(), |at| from + at + end.len());
    }
    match tail.chars().next() {
        Some('"') => string(rest, letters + 1),
        Some('\'') if prefix == "b" => letters + character(tail),
        _ => 0,
    }
}

/// The length of a character literal; 0 if the quote begins a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            chars.next();
            chars.find(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1)
        }
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::parse(Path::new("x/src/a.rs"), text)
    }

    #[test]
    fn words_in_comments_and_literals_are_not_code() {
        let text = r####"
// todo!() here
/* dbg!( /* nested */ todo!() */
let a = "todo!()"; let b = r#"todo!("x")"#; let c = b"todo!()"; let d = 'x'; let e = '\''; let f = "\" todo!()";
fn g<'a>(x: &'a str) { todo!() }
"####;
        assert_eq!(source(text).uses("todo!"), [(5, false)]);
    }

    #[test]
    fn a_word_must_stand_by_itself() {
        let text =
            "tokio::spawn(x);\ntokio::spawn_blocking(y);\nmy_tokio::spawn(z);\nforbid(unsafe_code);\nunsafe {}\n";
        assert_eq!(source(text).uses("tokio::spawn"), [(1, false)]);
        assert_eq!(source(text).uses("unsafe"), [(5, false)]);
    }

    #[test]
    fn items_under_cfg_test_are_tests_and_others_are_not() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { [1; 2] }\n}\n#[cfg(not(test))]\nfn c() {}\n#[cfg(all(test, unix))]\nuse x;\nfn d() {}\n";
        let tests: Vec<usize> =
            source(text).tests.iter().enumerate().filter(|(_, t)| **t).map(|(i, _)| i + 1).collect();
        assert_eq!(tests, [2, 3, 4, 5, 8, 9]);
        assert_eq!(source(text).lines_outside_tests(), 4);
    }

    #[test]
    fn a_file_in_a_tests_folder_is_a_test() {
        for (path, is_test) in
            [("a/tests/b.rs", true), ("a/src/b/tests.rs", true), ("a/src/contests.rs", false), ("a/src/lib.rs", false)]
        {
            assert_eq!(is_test_file(Path::new(path)), is_test, "{path}");
        }
    }

    #[test]
    fn attributes_are_read_whole() {
        let text = "#![expect(clippy::a,\n  reason = \"x [y]\")]\n#[derive(Debug)]\nlet c = '#';\n";
        let source = source(text);
        let attributes = source.attributes();
        assert_eq!(attributes.len(), 2);
        assert!(attributes[0].0.starts_with("expect(clippy::a") && attributes[0].0.contains("reason ="));
        assert_eq!((attributes[1].0, attributes[1].1), ("derive(Debug)", 3));
    }
}
