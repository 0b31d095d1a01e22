//! The one login module of a `sasl.jaas.config` string: `module flag key="value" …;`, read as Java reads it.
//!
//! Words may be bare or quoted by `"` or `'`; inside quotes a backslash escapes the next character.

use std::{collections::BTreeMap, iter::Peekable, str::Chars};

/// The module's class without its packages, and its options. `Debug` shows no value.
#[derive(PartialEq, Eq)]
pub(super) struct Jaas {
    pub(super) module: String,
    pub(super) options: BTreeMap<String, String>,
}

impl std::fmt::Debug for Jaas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.options.keys().collect();
        f.debug_struct("Jaas").field("module", &self.module).field("options", &names).finish()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Equals,
    Semicolon,
}

/// The error is a sentence without any part of the text, which holds a password.
pub(super) fn parse(text: &str) -> Result<Jaas, &'static str> {
    let mut tokens = tokens(text)?.into_iter().peekable();
    let Some(Token::Word(class)) = tokens.next() else { return Err("must begin with the class of a login module") };
    match tokens.next() {
        Some(Token::Word(flag))
            if ["required", "requisite", "sufficient", "optional"].contains(&flag.to_ascii_lowercase().as_str()) => {}
        _ => return Err("must have `required` behind the login module"),
    }
    let mut options = BTreeMap::new();
    loop {
        match tokens.next() {
            Some(Token::Semicolon) => break,
            Some(Token::Word(name)) => {
                let (Some(Token::Equals), Some(Token::Word(value))) = (tokens.next(), tokens.next()) else {
                    return Err("must have a value behind each option, as in username=\"me\"");
                };
                options.insert(name, value);
            }
            Some(Token::Equals) => return Err("has a `=` without a name before it"),
            None => return Err("must end with `;`"),
        }
    }
    if tokens.peek().is_some() {
        return Err("must be one login module; something stands behind its `;`");
    }
    let module = class.rsplit('.').next().unwrap_or_default().to_owned();
    Ok(Jaas { module, options })
}

fn tokens(text: &str) -> Result<Vec<Token>, &'static str> {
    let mut chars = text.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(char) = chars.next() {
        match char {
            _ if char.is_whitespace() => {}
            '=' => tokens.push(Token::Equals),
            ';' => tokens.push(Token::Semicolon),
            '"' | '\'' => tokens.push(Token::Word(quoted(char, &mut chars)?)),
            _ => {
                let mut word = String::from(char);
                while let Some(next) = chars.next_if(|c| !c.is_whitespace() && !"=;\"'".contains(*c)) {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Ok(tokens)
}

/// The rest of a quoted word, its escapes resolved as java.io.StreamTokenizer does.
fn quoted(quote: char, chars: &mut Peekable<Chars<'_>>) -> Result<String, &'static str> {
    let mut word = String::new();
    while let Some(char) = chars.next() {
        match char {
            _ if char == quote => return Ok(word),
            '\\' => match chars.next().ok_or("ends in the middle of an escape")? {
                'n' => word.push('\n'),
                't' => word.push('\t'),
                'r' => word.push('\r'),
                'b' => word.push('\u{8}'),
                'f' => word.push('\u{c}'),
                'a' => word.push('\u{7}'),
                'v' => word.push('\u{b}'),
                first @ '0'..='7' => {
                    let most = if first <= '3' { 2 } else { 1 };
                    let mut code = first.to_digit(8).unwrap_or_default();
                    for _ in 0..most {
                        match chars.next_if(|c| c.is_digit(8)).and_then(|c| c.to_digit(8)) {
                            Some(digit) => code = code * 8 + digit,
                            None => break,
                        }
                    }
                    word.extend(char::from_u32(code));
                }
                other => word.push(other),
            },
            other => word.push(other),
        }
    }
    Err("has a quoted word without an end")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "org.apache.kafka.common.security.plain.PlainLoginModule";

    fn user_and_password(text: &str) -> Result<(String, String), &'static str> {
        let jaas = parse(text)?;
        let option = |name: &str| jaas.options.get(name).cloned().unwrap_or_default();
        assert_eq!(jaas.module, "PlainLoginModule");
        Ok((option("username"), option("password")))
    }

    #[test]
    fn the_forms_that_users_write() {
        for (options, expected) in [
            (r#"username="me" password="secret";"#, ("me", "secret")),
            ("username=me password=secret ;", ("me", "secret")),
            ("\n  username='me'\n  password='se\"cret';\n", ("me", "se\"cret")),
            (r#"username = "me" password = "a\"b\\c\$d e=f;g";"#, ("me", "a\"b\\c$d e=f;g")),
            (
                r#"username="$ConnectionString" password="Endpoint=sb://x/;Key=a+b=";"#,
                ("$ConnectionString", "Endpoint=sb://x/;Key=a+b="),
            ),
            (r#"username="\141" password="\t";"#, ("a", "\t")),
            (r#"username="" password="";"#, ("", "")),
        ] {
            let (user, password) = user_and_password(&format!("{PLAIN} required {options}")).expect(options);
            assert_eq!((user.as_str(), password.as_str()), expected, "{options}");
        }
    }

    #[test]
    fn what_is_none_says_what_is_missing() {
        for (text, expected) in [
            ("", "must begin with the class of a login module"),
            ("hush", "must have `required` behind the login module"),
            ("Plain required", "must end with `;`"),
            ("Plain required username;", "must have a value behind each option, as in username=\"me\""),
            ("Plain required a=b; Plain required;", "must be one login module; something stands behind its `;`"),
            ("Plain required a=\"b;", "has a quoted word without an end"),
            ("Plain required a=\"\\", "ends in the middle of an escape"),
            ("Plain required =b;", "has a `=` without a name before it"),
        ] {
            assert_eq!(parse(text), Err(expected), "{text}");
        }
    }
}
