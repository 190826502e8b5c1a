//! Licence expressions, as crates write them.

/// Whether `expression` can be satisfied by the licences that `is_allowed` accepts.
///
/// `AND` binds closer than `OR`; the old `MIT/Apache-2.0` means `OR`; `X WITH Y` is one licence of that name.
///
/// # Errors
/// If it is no licence expression: with what was found.
pub fn is_satisfied(expression: &str, is_allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut reader = Reader { words: &words, at: 0, is_allowed };
    let value = reader.either()?;
    match reader.peek() {
        None => Ok(value),
        Some(word) => Err(format!("licence {expression:?}: unexpected {word:?}")),
    }
}

struct Reader<'a> {
    words: &'a [&'a str],
    at: usize,
    is_allowed: &'a dyn Fn(&str) -> bool,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn take(&mut self, word: &str) -> bool {
        let there = self.peek().is_some_and(|w| w.eq_ignore_ascii_case(word));
        self.at += usize::from(there);
        there
    }

    fn either(&mut self) -> Result<bool, String> {
        let mut value = self.both()?;
        while self.take("OR") {
            value |= self.both()?;
        }
        Ok(value)
    }

    fn both(&mut self) -> Result<bool, String> {
        let mut value = self.one()?;
        while self.take("AND") {
            value &= self.one()?;
        }
        Ok(value)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.take("(") {
            let value = self.either()?;
            return if self.take(")") { Ok(value) } else { Err("licence: a parenthesis is left open".to_owned()) };
        }
        let Some(name) = self.peek().filter(|w| !["AND", "OR", "WITH", ")"].contains(w)) else {
            return Err("licence: a name is missing".to_owned());
        };
        self.at += 1;
        if self.take("WITH") {
            let exception = self.peek().ok_or("licence: an exception is missing after WITH")?;
            self.at += 1;
            return Ok((self.is_allowed)(&format!("{name} WITH {exception}")));
        }
        // `X+` is X or any later one.
        Ok((self.is_allowed)(name) || name.strip_suffix('+').is_some_and(self.is_allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_satisfied_as_their_words_say() {
        let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "ISC"];
        for (expression, wanted) in [
            ("MIT", Ok(true)),
            ("ISC+", Ok(true)),
            ("GPL-3.0+", Ok(false)),
            ("GPL-3.0", Ok(false)),
            ("GPL-3.0 OR MIT", Ok(true)),
            ("GPL-3.0/MIT", Ok(true)),
            ("MIT AND GPL-3.0", Ok(false)),
            ("Apache-2.0 AND ISC", Ok(true)),
            ("GPL-3.0 OR MIT AND BSD", Ok(false)),
            ("(GPL-3.0 OR MIT) AND ISC", Ok(true)),
            ("Apache-2.0 WITH LLVM-exception OR BSD", Ok(true)),
            ("MIT WITH some-exception", Ok(false)),
            ("", Err(())),
            ("(MIT", Err(())),
            ("MIT ISC", Err(())),
            ("MIT OR", Err(())),
        ] {
            let found = is_satisfied(expression, &|name| allowed.contains(&name)).map_err(|_| ());
            assert_eq!(found, wanted, "{expression}");
        }
    }
}
