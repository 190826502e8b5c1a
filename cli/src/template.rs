//! Go templates with the functions that Docker's client has.

use gtmpl_ng::{Context, ExecError, Func, FuncError, Template as Engine, Value};

use crate::errors::{Error, Result};
use crate::json::Json;

/// A template that was read.
pub struct Template {
    text: String,
    engine: Engine,
}

/// Hidden key of a record: its labels, for `.Label "KEY"`.
pub const LABELS: &str = "_labels";
/// Hidden key of the record that makes a table's header.
pub const HEADER: &str = "_header";

impl Template {
    /// Reads a template. `\t` and `\n` are a tab and a new line, as in Docker's listings.
    ///
    /// # Errors
    /// With the template and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self> {
        let functions: [(&str, Func); 11] = [
            ("json", json),
            ("split", split),
            ("join", join),
            ("title", title),
            ("lower", lower),
            ("upper", upper),
            ("pad", pad),
            ("truncate", truncate),
            ("println", println),
            ("label", label),
            ("trim", trim),
        ];
        let mut engine = Engine::default();
        engine.add_funcs(&functions);
        engine.parse(rewrite(text)).map_err(|e| wrong(text, &e))?;
        Ok(Self { text: text.to_owned(), engine })
    }

    /// The text for one record.
    ///
    /// # Errors
    /// When the record has no such field, or a function does not take it.
    pub fn render(&self, record: &Json) -> Result<String> {
        // The engine's maps have no order; the whole record keeps Docker's.
        if self.text.replace(' ', "") == "{{json.}}" {
            return Ok(record.compact());
        }
        self.engine.render(&Context::from(record.to_template())).map_err(|error| match unknown_field(&error) {
            Some(field) => {
                let known: Vec<String> = record.fields().into_iter().map(|name| format!(".{name}")).collect();
                let (text, known) = (&self.text, known.join(", "));
                Error::Usage(format!(
                    "invalid --format \"{text}\": unknown field \".{field}\"\n       allowed: {known}"
                ))
            }
            None => wrong(&self.text, &error),
        })
    }
}

/// The escapes of `--format` in listings.
pub fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn wrong(text: &str, problem: &dyn std::error::Error) -> Error {
    Error::Usage(format!("invalid --format \"{text}\": {problem}"))
}

/// The field that a record does not have. The engine's own text shows the whole record instead.
fn unknown_field(error: &ExecError) -> Option<&str> {
    let ExecError::Structured(error) = error else { return None };
    error.message.strip_prefix("no field `")?.split('`').next()
}

/// Methods with an argument, of which listings have one, become function calls, which the engine
/// knows: `{{.Label "x"}}` → `{{label . "x"}}`.
fn rewrite(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let (before, action) = rest.split_at(start);
        let end = action.find("}}").unwrap_or(action.len());
        let (action, after) = action.split_at(end);
        out.push_str(before);
        out.push_str(&action.replace(".Label \"", "label $ \"").replace(".Label `", "label $ `"));
        rest = after;
    }
    out.push_str(rest);
    out
}

fn text_of(value: &Value) -> String {
    value.to_string()
}

fn argument<'a>(args: &'a [Value], index: usize, name: &str) -> std::result::Result<&'a Value, FuncError> {
    args.get(index).ok_or_else(|| FuncError::AtLeastXArgs(name.into(), index + 1))
}

fn number(args: &[Value], index: usize, name: &str) -> std::result::Result<usize, FuncError> {
    match argument(args, index, name)? {
        Value::Number(number) => Ok(number.as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0)),
        _ => Err(anyhow::anyhow!("{name} needs a number").into()),
    }
}

type Answer = std::result::Result<Value, FuncError>;

fn json(args: &[Value]) -> Answer {
    Ok(Json::from_template(argument(args, 0, "json")?).compact().into())
}

fn split(args: &[Value]) -> Answer {
    let (text, separator) = (text_of(argument(args, 0, "split")?), text_of(argument(args, 1, "split")?));
    Ok(Value::Array(text.split(separator.as_str()).map(Value::from).collect()))
}

fn join(args: &[Value]) -> Answer {
    let separator = text_of(argument(args, 1, "join")?);
    match argument(args, 0, "join")? {
        Value::Array(items) => Ok(items.iter().map(text_of).collect::<Vec<_>>().join(&separator).into()),
        Value::Nil | Value::NoValue => Ok("".into()),
        _ => Err(anyhow::anyhow!("join needs a list").into()),
    }
}

fn title(args: &[Value]) -> Answer {
    let text = text_of(argument(args, 0, "title")?);
    Ok(text.split(' ').map(crate::human::capital).collect::<Vec<_>>().join(" ").into())
}

fn lower(args: &[Value]) -> Answer {
    Ok(text_of(argument(args, 0, "lower")?).to_lowercase().into())
}

fn upper(args: &[Value]) -> Answer {
    Ok(text_of(argument(args, 0, "upper")?).to_uppercase().into())
}

fn trim(args: &[Value]) -> Answer {
    Ok(text_of(argument(args, 0, "trim")?).trim().into())
}

/// Spaces before and after a text that is not empty.
fn pad(args: &[Value]) -> Answer {
    let text = text_of(argument(args, 0, "pad")?);
    let spaces = |count: usize| " ".repeat(count.min(1_000));
    if text.is_empty() {
        return Ok(text.into());
    }
    Ok(format!("{}{text}{}", spaces(number(args, 1, "pad")?), spaces(number(args, 2, "pad")?)).into())
}

fn truncate(args: &[Value]) -> Answer {
    let text = text_of(argument(args, 0, "truncate")?);
    Ok(text.chars().take(number(args, 1, "truncate")?).collect::<String>().into())
}

fn println(args: &[Value]) -> Answer {
    Ok(format!("{}\n", args.iter().map(text_of).collect::<Vec<_>>().join(" ")).into())
}

/// `.Label "KEY"`: the label's value; in a header its name, as Docker makes one of it.
fn label(args: &[Value]) -> Answer {
    let key = text_of(argument(args, 1, "Label")?);
    let Value::Object(record) = argument(args, 0, "Label")? else {
        return Err(anyhow::anyhow!("there are no labels here").into());
    };
    if record.contains_key(HEADER) {
        let last = key.rsplit('.').next().unwrap_or(&key);
        return Ok(last.replace(['-', '_'], " ").to_uppercase().into());
    }
    match record.get(LABELS) {
        Some(Value::Map(labels)) => Ok(labels.get(&key).map(text_of).unwrap_or_default().into()),
        _ => Err(anyhow::anyhow!("there are no labels here").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Object;

    fn record() -> Json {
        Object::new()
            .with("Name", "web")
            .with("Replicas", 3u64)
            .with("Args", &vec!["a".to_owned(), "b".to_owned()])
            .with("Spec", Object::new().with("Labels", Object::new().with("zone", "b").with("a.b", "c")))
            .with(LABELS, Object::new().with("com.x.zone", "b"))
            .into()
    }

    fn render(text: &str) -> String {
        match Template::parse(text).and_then(|t| t.render(&record())) {
            Ok(text) => text,
            Err(error) => format!("ERROR {error}"),
        }
    }

    #[test]
    fn the_functions_of_dockers_client_work() {
        for (template, expected) in [
            ("{{.Name}} {{upper .Name}} {{lower \"ABC\"}} {{title .Name}}", "web WEB abc Web"),
            ("{{json .Name}} {{json .Args}} {{json .Spec}}", r#""web" ["a","b"] {"Labels":{"a.b":"c","zone":"b"}}"#),
            ("{{join .Args \", \"}} {{len .Args}} {{index .Args 1}}", "a, b 2 b"),
            ("{{range .Args}}<{{.}}>{{end}}", "<a><b>"),
            ("{{range $k, $v := .Spec.Labels}}{{$k}}={{$v}};{{end}}", "a.b=c;zone=b;"),
            ("{{index .Spec.Labels \"a.b\"}}", "c"),
            ("{{if eq .Replicas 3}}three{{else}}other{{end}}", "three"),
            ("{{.Label \"com.x.zone\"}}|{{.Label \"none\"}}|", "b||"),
            ("{{truncate .Name 2}}{{pad .Name 1 2}}|", "we web  |"),
            ("{{printf \"%s-%d\" .Name .Replicas}}", "web-3"),
            ("{{.Spec.Labels.missing}}", "<no value>"),
            ("{{range split \"a:b\" \":\"}}{{.}} {{end}}", "a b "),
        ] {
            assert_eq!(render(template), expected, "{template}");
        }
    }

    #[test]
    fn the_whole_record_keeps_its_order() {
        assert!(render("{{json .}}").starts_with(r#"{"Name":"web","Replicas":3"#));
        assert!(!render("{{json .}}").contains("_labels"));
    }

    #[test]
    fn an_unknown_field_is_named_beside_the_known_ones() {
        assert_eq!(
            render("{{.Name}} {{.Nmae}}"),
            "ERROR invalid --format \"{{.Name}} {{.Nmae}}\": unknown field \".Nmae\"\n       allowed: .Name, .Replicas, .Args, .Spec"
        );
    }

    #[test]
    fn a_wrong_field_or_template_is_an_error_that_shows_the_template() {
        for template in ["{{.Nmae}}", "{{.Name", "{{nosuch .Name}}"] {
            assert!(render(template).contains(&format!("invalid --format \"{template}\"")), "{}", render(template));
        }
    }
}
