//! What `inspect` prints: Docker's JSON, or a template for each object.

use crate::errors::{Error, Result};
use crate::json::Json;
use crate::output;
use crate::template::Template;

/// Prints what was found, then reports what was not.
///
/// # Errors
/// On a wrong template, and the errors of objects that could not be had.
pub fn print(found: Vec<Json>, missing: Vec<Error>, format: Option<&str>) -> Result<()> {
    output::out(&text(found, format)?)?;
    Error::gather(missing)
}

/// The text for the objects found.
///
/// # Errors
/// On a wrong template.
pub fn text(found: Vec<Json>, format: Option<&str>) -> Result<String> {
    match format {
        None | Some("") => Ok(Json::List(found).pretty() + "\n"),
        Some("json") => Ok(found.into_iter().map(|json| json.compact() + "\n").collect()),
        Some(format) => {
            let template = Template::parse(format)?;
            found.iter().map(|json| Ok(template.render(json)? + "\n")).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Object;

    #[test]
    fn objects_are_an_array_indented_by_four_or_what_the_template_says() {
        let found = || vec![Json::from(Object::new().with("ID", "x").with("Spec", Object::new().with("Name", "web")))];
        let show = |format| text(found(), format).unwrap();
        assert_eq!(
            show(None),
            "[\n    {\n        \"ID\": \"x\",\n        \"Spec\": {\n            \"Name\": \"web\"\n        }\n    }\n]\n"
        );
        assert_eq!(show(Some("{{.Spec.Name}}")), "web\n");
        assert_eq!(show(Some("json")), "{\"ID\":\"x\",\"Spec\":{\"Name\":\"web\"}}\n");
        assert_eq!(text(vec![], None).unwrap(), "[]\n");
    }
}
