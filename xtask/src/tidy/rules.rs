//! The rules on one source file.

use std::path::Path;

use super::source::Source;

/// Past this, a file outside tests is two nouns.
const MAX_LINES: usize = 800;

/// What makes the same input give another output: clocks and randomness.
const CLOCKS_AND_DICE: &[&str] = &[
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "Utc::now",
    "Local::now",
    "rand::",
    "getrandom",
    "thread_rng",
    "OsRng",
    "RandomState",
];

/// Pure parts: a file (`….rs`) or a folder, and what else is banned there.
pub const CORES: &[(&str, &[&str])] = &[
    ("types/src", &[]),
    ("store/src", &["HashMap", "HashSet"]),
    ("scheduler/src", &[]),
    ("stack/src", &[]),
    ("manager/src/orchestrate", &[]),
    ("worker/src/plan", &[]),
    ("overlay/src/desired", &[]),
    ("overlay/src/diff", &[]),
];

/// Macros that say "not yet", and one that was left behind.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!"];

/// Every violation in one file: line and reason.
pub fn check(path: &Path, text: &str) -> Vec<(usize, String)> {
    let source = Source::parse(path, text);
    let mut found = Vec::new();
    let lines = source.lines_outside_tests();
    if lines > MAX_LINES {
        found.push((MAX_LINES, format!("{lines} lines outside tests; at most {MAX_LINES}: which noun moved out?")));
    }
    for word in UNFINISHED {
        found.extend(source.uses(word).into_iter().map(|(line, _)| (line, format!("{word} is left in the code"))));
    }
    for word in ["tokio::spawn", "tokio::task::spawn"] {
        for (line, _) in source.uses(word).into_iter().filter(|(_, is_test)| !is_test) {
            found.push((line, format!("bare {word}: tasks belong to a JoinSet or TaskTracker that someone awaits")));
        }
    }
    if let Some((core, more)) = CORES.iter().find(|(core, _)| is_within(path, core)) {
        for word in CLOCKS_AND_DICE.iter().chain(*more) {
            for (line, _) in source.uses(word).into_iter().filter(|(_, is_test)| !is_test) {
                found.push((line, format!("{word} in {core}, which must give the same result for the same input")));
            }
        }
    }
    if !may_be_unsafe(path) {
        let reason = "unsafe belongs in its crate's sys.rs (or the reaper)";
        found.extend(source.uses("unsafe").into_iter().map(|(line, _)| (line, reason.to_owned())));
    }
    for (attribute, line, is_test) in source.attributes() {
        let is_shared = is_test || is_reaper(path);
        found.extend(lint_exception(attribute, is_shared).map(|reason| (line, reason)));
    }
    found.sort();
    found
}

/// `#[allow]` stays behind when its cause is gone; `#[expect]` does not, and must say why.
///
/// Except where several programs share a module, as tests and the reaper's do: what one of them uses, another does not,
/// and no expectation holds in both. There `#[allow]` may stand, with a reason.
fn lint_exception(attribute: &str, is_shared: bool) -> Option<String> {
    let inner = match attribute.split_once(',') {
        Some((head, tail)) if head.trim_start().starts_with("cfg_attr(") => tail.trim_start(),
        _ => attribute.trim_start(),
    };
    if inner.starts_with("allow(") && !(is_shared && inner.contains("reason")) {
        return Some("#[allow] is not used here: #[expect(lint, reason = \"…\")]".to_owned());
    }
    let is_bare = inner.starts_with("expect(") && !inner.contains("reason");
    is_bare.then(|| "#[expect] without a reason".to_owned())
}

fn may_be_unsafe(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "sys.rs") || has_folder(path, "sys") || is_reaper(path)
}

/// The programs that stay with a container, which have no standard library.
fn is_reaper(path: &Path) -> bool {
    has_folder(path, "reaper") || path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("reaper"))
}

fn has_folder(path: &Path, name: &str) -> bool {
    path.components().any(|component| component.as_os_str() == name)
}

/// Whether `path` is the core itself, its file, or below it.
pub fn is_within(path: &Path, core: &str) -> bool {
    path.starts_with(core) || path == Path::new(&format!("{core}.rs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(path: &str, text: &str) -> Vec<String> {
        check(Path::new(path), text).into_iter().map(|(line, reason)| format!("{line}: {reason}")).collect()
    }

    #[test]
    fn a_clock_in_a_core_is_found_and_in_a_shell_or_a_test_is_not() {
        let text = "fn a() { Instant::now(); }\n#[cfg(test)]\nmod tests { fn b() { Instant::now(); } }\n";
        assert_eq!(
            reasons("scheduler/src/pick.rs", text),
            ["1: Instant::now in scheduler/src, which must give the same result for the same input"]
        );
        assert_eq!(reasons("worker/src/plan.rs", text).len(), 1);
        assert_eq!(reasons("worker/src/plan/step.rs", text).len(), 1);
        assert!(reasons("worker/src/planner.rs", text).is_empty());
        assert!(reasons("node/src/lib.rs", text).is_empty());
    }

    #[test]
    fn a_hash_map_is_refused_in_the_store_only() {
        assert_eq!(reasons("store/src/tables.rs", "use std::collections::HashMap;\n").len(), 1);
        assert!(reasons("scheduler/src/tables.rs", "use std::collections::HashMap;\n").is_empty());
    }

    #[test]
    fn a_bare_spawn_is_found_outside_tests() {
        let text = "fn a() { tokio::spawn(x); set.spawn(y); tokio::task::spawn_blocking(z); }\n";
        assert_eq!(reasons("node/src/lib.rs", text).len(), 1);
        assert!(reasons("node/tests/a.rs", text).is_empty());
    }

    #[test]
    fn unsafe_is_found_outside_sys() {
        for (path, count) in
            [("raft/src/log.rs", 1), ("raft/src/sys.rs", 0), ("overlay/src/sys/nl.rs", 0), ("runtime/src/reaper.rs", 0)]
        {
            assert_eq!(reasons(path, "fn a() { unsafe { b() } }\n").len(), count, "{path}");
        }
    }

    #[test]
    fn exceptions_from_lints_need_expect_and_a_reason() {
        for (text, count) in [
            ("#[allow(dead_code)]\n", 1),
            ("#![allow(dead_code)]\n", 1),
            ("#[cfg_attr(test, allow(dead_code))]\n", 1),
            ("#[expect(dead_code)]\n", 1),
            ("#[expect(dead_code, reason = \"used by the simulator\")]\n", 0),
            ("#[derive(Debug)]\n", 0),
        ] {
            assert_eq!(reasons("node/src/lib.rs", text).len(), count, "{text}");
        }
        let shared = "#![allow(dead_code, reason = \"each test program uses a part\")]\n";
        assert_eq!(reasons("node/src/lib.rs", shared).len(), 1);
        assert!(reasons("node/tests/common/mod.rs", shared).is_empty());
        assert!(reasons("runtime/reaper/nolibc.rs", shared).is_empty());
        assert_eq!(reasons("node/tests/common/mod.rs", "#![allow(dead_code)]\n").len(), 1);
    }

    #[test]
    fn a_long_file_is_refused_unless_its_length_is_tests() {
        let long = "fn a() {}\n".repeat(801);
        assert_eq!(
            reasons("node/src/lib.rs", &long),
            ["800: 801 lines outside tests; at most 800: which noun moved out?"]
        );
        assert!(reasons("node/tests/long.rs", &long).is_empty());
        let tested = format!("fn a() {{}}\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
        assert!(reasons("node/src/lib.rs", &tested).is_empty());
    }

    #[test]
    fn unfinished_code_is_found_in_tests_too() {
        assert_eq!(reasons("node/tests/a.rs", "fn a() { todo!() }\nfn b() { dbg!(1); }\n").len(), 2);
    }
}
