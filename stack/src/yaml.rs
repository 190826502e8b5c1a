//! Text to [`tree`](crate::tree), within bounds.

use std::collections::{BTreeMap, BTreeSet};

use granit_parser::{Event, Parser, ScalarStyle, Tag};

use crate::scalar;
use crate::tree::{Entry, Node, Place, Value};

/// Bytes of one file.
pub const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Collections inside collections.
pub const DEPTH_MAX: usize = 64;

/// What aliases and merge keys may add to a file, in weight: text bytes plus [`NODE_WEIGHT`] a node.
const EXPANSION_MAX: usize = 16 * 1024 * 1024;

/// Weight of a node besides its text, about its size in memory.
const NODE_WEIGHT: usize = 128;

type Failure = (Place, String);

/// Parses the one document of a file into a tree whose root is a mapping.
///
/// # Errors
/// With the first place that cannot be read.
pub fn parse(file: usize, text: &str) -> Result<Node, Failure> {
    let start = Place { file, line: 1, column: 1 };
    if text.len() > FILE_BYTES_MAX {
        return Err((start, format!("the file has {} bytes; at most {FILE_BYTES_MAX}", text.len())));
    }
    let options = granit_parser::options! { emit_comments: false };
    let mut builder = Builder::new(file);
    for step in Parser::new_from_str_with_options(text, options) {
        let (event, span) = step.map_err(|error| {
            let mark = error.marker();
            (Place { file, line: mark.line(), column: mark.col() + 1 }, error.info())
        })?;
        builder.take(event, Place { file, line: span.start.line(), column: span.start.col() + 1 })?;
    }
    match builder.root {
        Some(root) if matches!(root.value, Value::Map(_)) => Ok(root),
        Some(Node { value: Value::Null, .. }) | None => {
            Err((start, "the file is empty; expected a mapping with services".into()))
        }
        Some(root) => Err((root.place, format!("the top level is {}; expected a mapping", root.kind()))),
    }
}

/// A collection that is still open.
struct Open {
    place: Place,
    anchor: usize,
    /// Of all nodes in it.
    weight: usize,
    /// Levels below it.
    depth: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        keys: BTreeMap<String, Place>,
        /// A key that waits for its value.
        key: Option<Key>,
        /// Values of `<<`.
        merged: Vec<Node>,
    },
}

struct Key {
    text: String,
    place: Place,
    is_merge: bool,
}

/// A node with what it costs to copy.
#[derive(Clone)]
struct Weighed {
    node: Node,
    weight: usize,
    depth: usize,
}

struct Builder {
    file: usize,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Weighed>,
    documents: usize,
    expanded: usize,
    root: Option<Node>,
}

impl Builder {
    fn new(file: usize) -> Self {
        Self { file, open: Vec::new(), anchors: BTreeMap::new(), documents: 0, expanded: 0, root: None }
    }

    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), Failure> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err((place, "a second document; a compose file is one document".into()));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_merge = text == "<<" && style == ScalarStyle::Plain && tag.is_none();
                if self.waits_for_key() {
                    check_tag(tag.as_deref(), &["str", "merge"], place)?;
                    return self.set_key(Key { text: text.into_owned(), place, is_merge });
                }
                let weight = NODE_WEIGHT + text.len();
                let value = scalar_value(&text, style, tag.as_deref(), place)?;
                self.put(anchor, Weighed { node: Node { place, value }, weight, depth: 0 })
            }
            Event::Alias(id) => self.alias(id, place),
            Event::SequenceStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), &["seq"], place)?;
                self.start(place, anchor, Kind::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), &["map"], place)?;
                let kind = Kind::Map { entries: Vec::new(), keys: BTreeMap::new(), key: None, merged: Vec::new() };
                self.start(place, anchor, kind)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            _ => Ok(()),
        }
    }

    fn waits_for_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { kind: Kind::Map { key: None, .. }, .. }))
    }

    fn set_key(&mut self, new: Key) -> Result<(), Failure> {
        if let Some(Open { kind: Kind::Map { key, keys, .. }, .. }) = self.open.last_mut() {
            if !new.is_merge
                && let Some(first) = keys.insert(new.text.clone(), new.place)
            {
                return Err((new.place, format!("key \"{}\" is already given in line {}", new.text, first.line)));
            }
            *key = Some(new);
        }
        Ok(())
    }

    fn start(&mut self, place: Place, anchor: usize, kind: Kind) -> Result<(), Failure> {
        if self.waits_for_key() {
            return Err((place, "a key is a list or a mapping; expected a string".into()));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err((place, format!("nested more than {DEPTH_MAX} levels deep")));
        }
        self.open.push(Open { place, anchor, weight: NODE_WEIGHT, depth: 0, kind });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.kind {
            Kind::List(items) => Value::List(items),
            Kind::Map { mut entries, keys, merged, .. } => {
                let mut known: BTreeSet<String> = keys.into_keys().collect();
                for source in merged {
                    if let Value::Map(more) = source.value {
                        entries.extend(more.into_iter().filter(|entry| known.insert(entry.key.clone())));
                    }
                }
                Value::Map(entries)
            }
        };
        let node = Node { place: open.place, value };
        self.put(open.anchor, Weighed { node, weight: open.weight, depth: open.depth + 1 })
    }

    fn alias(&mut self, id: usize, place: Place) -> Result<(), Failure> {
        let Some(target) = self.anchors.get(&id) else {
            return Err((place, "an alias inside its own anchor".into()));
        };
        if self.waits_for_key() {
            let Value::Text(text) = &target.node.value else {
                return Err((place, format!("a key is {}; expected a string", target.node.kind())));
            };
            let key = Key { text: text.clone(), place, is_merge: false };
            return self.set_key(key);
        }
        self.expanded += target.weight;
        if self.expanded > EXPANSION_MAX {
            return Err((place, "aliases make the file too large".into()));
        }
        if self.open.len() + target.depth > DEPTH_MAX {
            return Err((place, format!("nested more than {DEPTH_MAX} levels deep")));
        }
        let copy = target.clone();
        self.put(0, copy)
    }

    /// Puts a finished node where it belongs.
    fn put(&mut self, anchor: usize, weighed: Weighed) -> Result<(), Failure> {
        if anchor != 0 {
            self.anchors.insert(anchor, weighed.clone());
        }
        let Weighed { node, weight, depth } = weighed;
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.weight += weight;
        open.depth = open.depth.max(depth);
        match &mut open.kind {
            Kind::List(items) => items.push(node),
            Kind::Map { entries, key, merged, .. } => match key.take() {
                Some(key) if key.is_merge => merged.extend(mergeable(node)?),
                Some(Key { text, place, .. }) => entries.push(Entry { key: text, place, value: node }),
                None => return Err((Place { file: self.file, ..node.place }, "a value without a key".into())),
            },
        }
        Ok(())
    }
}

/// The mappings that a merge key brings in.
fn mergeable(node: Node) -> Result<Vec<Node>, Failure> {
    let is_map = |node: &Node| matches!(node.value, Value::Map(_));
    let refuse =
        |node: &Node| (node.place, format!("<< brings in {}; expected a mapping or a list of mappings", node.kind()));
    match node.value {
        Value::Map(_) => Ok(vec![node]),
        Value::List(items) => match items.iter().find(|item| !is_map(item)) {
            Some(bad) => Err(refuse(bad)),
            None => Ok(items),
        },
        _ => Err(refuse(&node)),
    }
}

fn check_tag(tag: Option<&Tag>, allowed: &[&str], place: Place) -> Result<(), Failure> {
    match tag {
        Some(tag) if !tag.core_suffix().is_some_and(|suffix| allowed.contains(&suffix)) => {
            Err((place, format!("tag {} is not built yet here", tag.original())))
        }
        _ => Ok(()),
    }
}

fn scalar_value(text: &str, style: ScalarStyle, tag: Option<&Tag>, place: Place) -> Result<Value, Failure> {
    let Some(tag) = tag else {
        let is_plain = style == ScalarStyle::Plain;
        return Ok(if is_plain { scalar::resolve(text) } else { Value::Text(text.into()) });
    };
    check_tag(Some(tag), &["str", "int", "float", "bool", "null"], place)?;
    let suffix = tag.core_suffix().unwrap_or_default();
    let value = scalar::resolve(text);
    match (suffix, &value) {
        ("str", _) => Ok(Value::Text(text.into())),
        ("int" | "float", Value::Number(_)) | ("bool", Value::Bool(_)) | ("null", Value::Null) => Ok(value),
        _ => Err((place, format!("\"{text}\" is not what its tag {} says", tag.original()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: usize, column: usize) -> Place {
        Place { file: 0, line, column }
    }

    /// The tree in one line.
    fn show(node: &Node) -> String {
        match &node.value {
            Value::Null | Value::Broken => "~".into(),
            Value::Bool(b) => b.to_string(),
            Value::Number(n) => format!("#{n}"),
            Value::Time(t) => format!("@{t}"),
            Value::Text(t) => format!("{t:?}"),
            Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(",")),
            Value::Map(entries) => {
                format!(
                    "{{{}}}",
                    entries.iter().map(|e| format!("{}:{}", e.key, show(&e.value))).collect::<Vec<_>>().join(",")
                )
            }
        }
    }

    #[test]
    fn documents_become_trees() {
        for (text, tree) in [
            (
                "a: 1\nb: [x, 'y', \"z\", ~, true, yes, 2024-01-01]\n",
                r##"{a:#1,b:["x","y","z",~,true,"yes",@2024-01-01]}"##,
            ),
            ("a: |\n  one\n  two\nb: >\n  one\n  two\n", r#"{a:"one\ntwo\n",b:"one two\n"}"#),
            ("a: &x {k: v}\nb: *x\n", r#"{a:{k:"v"},b:{k:"v"}}"#),
            ("x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\n", "{x:{a:#1,b:#2},y:{b:#3,a:#1}}"),
            ("y:\n  <<: [{a: 1}, {a: 2, c: 3}]\n", "{y:{a:#1,c:#3}}"),
            ("a: !!str 5\nb: !!int 5\n", r##"{a:"5",b:#5}"##),
            ("'<<': {a: 1}\n", "{<<:{a:#1}}"),
            ("80: x\n", r#"{80:"x"}"#),
            ("a: 'k: v'\r\nb: ü\r\n", r#"{a:"k: v",b:"ü"}"#),
            ("---\na: b\n...\n", r#"{a:"b"}"#),
        ] {
            let node = parse(0, text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
            assert_eq!(show(&node), tree, "{text}");
        }
    }

    #[test]
    fn every_node_knows_its_line_and_column() {
        let node = parse(3, "a:\n  bc: x\n  d:\n    - \"y\"\n    - {e: ü, f: g}\n").unwrap();
        let a = node.get("a").unwrap();
        let list = a.get("d").unwrap().items();
        assert_eq!(node.key_place("a"), Some(Place { file: 3, line: 1, column: 1 }));
        assert_eq!(a.key_place("bc"), Some(Place { file: 3, line: 2, column: 3 }));
        assert_eq!(a.get("bc").unwrap().place, Place { file: 3, line: 2, column: 7 });
        assert_eq!(list[0].place, Place { file: 3, line: 4, column: 7 });
        assert_eq!(list[1].get("f").unwrap().place, Place { file: 3, line: 5, column: 17 });
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_place() {
        let deep = format!("a: {}{}", "[".repeat(70), "]".repeat(70));
        for (text, place, message) in [
            ("", at(1, 1), "the file is empty"),
            ("# only a comment\n", at(1, 1), "the file is empty"),
            ("- a\n", at(1, 1), "the top level is a list"),
            ("a: 1\nb: 2\na: 3\n", at(3, 1), "key \"a\" is already given in line 1"),
            ("a: 1\n---\nb: 2\n", at(2, 1), "a second document"),
            ("a: *x\n", at(1, 4), "unknown anchor"),
            ("a: &x [*x]\n", at(1, 8), "an alias inside its own anchor"),
            ("a:\n  <<: 5\n", at(2, 7), "<< brings in a number"),
            ("a:\n  <<: [{b: 1}, x]\n", at(2, 16), "<< brings in a string"),
            ("[a]: b\n", at(1, 1), "a key is a list"),
            ("a: !reset null\n", at(1, 11), "tag !reset is not built yet here"),
            ("a: !!int x\n", at(1, 10), "\"x\" is not what its tag"),
            ("a: b: c\n", at(1, 5), ""),
            (&deep, at(1, 67), "nested more than 64 levels deep"),
        ] {
            let (found, text_found) = parse(0, text).expect_err(text);
            assert!(text_found.contains(message), "{text}: {text_found}");
            assert_eq!(found, place, "{text}: {text_found}");
        }
    }

    #[test]
    fn a_billion_laughs_are_cut_short() {
        let mut text = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
        for level in 1..30 {
            let previous = vec![format!("*a{}", level - 1); 9].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{previous}]\n"));
        }
        assert_eq!(parse(0, &text).unwrap_err().1, "aliases make the file too large");
    }

    #[test]
    fn copies_of_one_long_text_are_cut_short() {
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 1_000].join(","));
        assert_eq!(parse(0, &text).unwrap_err().1, "aliases make the file too large");
    }

    #[test]
    fn a_file_above_the_limit_is_not_parsed() {
        let text = " ".repeat(FILE_BYTES_MAX + 1);
        assert_eq!(parse(0, &text).unwrap_err(), (at(1, 1), "the file has 4194305 bytes; at most 4194304".into()));
    }
}
