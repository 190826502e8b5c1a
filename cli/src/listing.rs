//! What `ls` and `ps` print: a table, JSON lines, or a template for each record.

use clap::Args;

use crate::errors::Result;
use crate::json::{Json, Object};
use crate::table;
use crate::template::{HEADER, Template, unescape};

/// `--format` and `--quiet` of a listing.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct ListArgs {
    /// "table", "table TEMPLATE", "json" (a record a line), or a Go template for each record
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Only show ids (names, where objects have no ids)
    #[arg(long, short)]
    pub quiet: bool,
}

/// A record, with every field that templates may name.
pub type Record = Object;

/// Records of one kind.
pub struct Listing {
    /// Names of fields with their titles.
    pub headers: &'static [(&'static str, &'static str)],
    /// What is shown without `--format`: a template without "table".
    pub table: &'static str,
    /// What is shown with `--quiet`: a field.
    pub quiet: &'static str,
    pub records: Vec<Record>,
}

impl Listing {
    /// The text to print.
    ///
    /// # Errors
    /// On a wrong template.
    pub fn show(self, args: &ListArgs) -> Result<String> {
        let quiet = format!("{{{{.{}}}}}", self.quiet);
        match args.format.as_deref() {
            None | Some("table") if args.quiet => self.lines(&quiet),
            None | Some("" | "table") => {
                let template = self.table;
                self.aligned(template)
            }
            Some("json") => Ok(self.records.into_iter().map(|r| Json::from(r).compact() + "\n").collect()),
            Some(format) => match format.strip_prefix("table ") {
                Some(template) => self.aligned(unescape(template.trim_matches(' ')).as_str()),
                None => self.lines(&unescape(format)),
            },
        }
    }

    fn lines(self, template: &str) -> Result<String> {
        let template = Template::parse(template)?;
        self.records.into_iter().map(|record| Ok(template.render(&record.into())? + "\n")).collect()
    }

    fn aligned(self, template: &str) -> Result<String> {
        let template = Template::parse(template)?;
        let header = self.headers.iter().fold(Object::new(), |o, (field, title)| o.with(field, *title));
        let mut lines = vec![template.render(&header.with(HEADER, true).into())?];
        for record in self.records {
            lines.push(template.render(&record.into())?);
        }
        Ok(table::align(&lines))
    }
}

/// `a=b,c=d`, as listings print labels.
pub fn labels_text(labels: &std::collections::BTreeMap<String, String>) -> String {
    labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::LABELS;

    fn listing() -> Listing {
        let record = |id: &str, name: &str| {
            Object::new()
                .with("ID", id)
                .with("Name", name)
                .with(LABELS, Object::new().with("com.example.disk-type", "ssd"))
        };
        Listing {
            headers: &[("ID", "ID"), ("Name", "NAME")],
            table: "{{.ID}}\t{{.Name}}",
            quiet: "ID",
            records: vec![record("1", "one"), record("2", "two")],
        }
    }

    fn show(format: Option<&str>, quiet: bool) -> String {
        match listing().show(&ListArgs { format: format.map(str::to_owned), quiet }) {
            Ok(text) => text,
            Err(error) => format!("ERROR {error}"),
        }
    }

    #[test]
    fn every_form_of_format_works() {
        for (format, quiet, expected) in [
            (None, false, "ID        NAME\n1         one\n2         two\n"),
            (Some("table"), false, "ID        NAME\n1         one\n2         two\n"),
            (None, true, "1\n2\n"),
            (Some("table"), true, "1\n2\n"),
            (Some("json"), false, "{\"ID\":\"1\",\"Name\":\"one\"}\n{\"ID\":\"2\",\"Name\":\"two\"}\n"),
            (Some("{{.Name}}"), false, "one\ntwo\n"),
            (Some("{{.Name}}: {{.ID}}"), true, "one: 1\ntwo: 2\n"),
            (Some(r"table {{.Name}}\t{{.ID}}"), false, "NAME      ID\none       1\ntwo       2\n"),
            (
                Some(r#"table {{.Name}}\t{{.Label "com.example.disk-type"}}"#),
                false,
                "NAME      DISK TYPE\none       ssd\ntwo       ssd\n",
            ),
        ] {
            assert_eq!(show(format, quiet), expected, "{format:?}");
        }
    }

    #[test]
    fn a_field_that_is_not_there_is_an_error() {
        assert!(show(Some("{{.Nmae}}"), false).contains("Nmae"));
        assert!(show(Some("table {{.Nmae}}"), false).contains("Nmae"));
    }
}
