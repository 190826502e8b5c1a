//! The lines that the README shows of one machine and of a second one, run as they stand there.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rswarm_cluster_tests::lab::{Host, Lab, image};

const README: &str = include_str!("../../README.md");
const SECTION: &str = "\n## On your own machines\n";
/// Where the README's reader finds the images; the test has them elsewhere.
const IMAGES: &str = "target/images/";

/// The commands in the section's blocks, a block each.
fn blocks() -> Vec<Vec<&'static str>> {
    let section = README.split_once(SECTION).unwrap().1;
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    let inside = section.split("```").skip(1).step_by(2);
    inside.map(|block| block.lines().map(str::trim).filter(|line| !line.is_empty()).collect()).collect()
}

/// Types a line on a host, as a person does: the next follows when this one has ended, or begun to answer.
fn type_line(host: &Host, line: &str) -> String {
    if let Some(line) = line.strip_suffix(" &") {
        host.spawn("daemon", &["sh", "-c", &format!("exec {line}")]).unwrap();
        host.await_socket(Duration::from_secs(30)).unwrap();
        return String::new();
    }
    host.exec(&["sh", "-c", line]).unwrap().text().unwrap()
}

#[test]
fn the_readme_s_lines_make_a_cluster_of_two_machines_that_answers() {
    let blocks = blocks();
    let [build, first, second] = &blocks[..] else { panic!("three blocks are expected: {blocks:?}") };
    assert!(build.iter().any(|line| line.contains("cargo build --release")), "{build:?}");
    let images = image("nginx").unwrap().parent().unwrap().display().to_string() + "/";

    let lab = Lab::builder().hosts(["one", "two"]).build().unwrap();
    let (one, two) = (lab.host("one"), lab.host("two"));
    let mut joins = String::new();
    for line in first {
        let said = type_line(one, &line.replace(IMAGES, &images));
        if line.starts_with("curl") {
            assert!(said.contains("nginx"), "{said}");
        }
        joins = said;
    }
    // What the last line prints is what the second machine is told, with its own token and address.
    let join = joins.lines().map(str::trim).find(|line| line.starts_with("rswarm join ")).unwrap();
    let words: Vec<&str> = join.split(' ').collect();
    assert_eq!(words.len(), 5, "{join}");
    assert!(second.contains(&"rswarm join --token TOKEN ADDRESS:2377"), "{second:?}");
    let address = words[4].strip_suffix(":2377").unwrap();
    for line in second {
        let said = type_line(two, &line.replace("TOKEN", words[3]).replace("ADDRESS", address));
        if line.starts_with("curl") {
            assert!(said.contains("nginx"), "{said}");
        }
    }
    assert_eq!(type_line(one, "rswarm node ls --quiet").lines().count(), 2);
}
