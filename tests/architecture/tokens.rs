//! Rust sources in tokens: words, `::` and single signs. Comments, strings and characters are left out.

/// A word or sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// The word or sign.
    pub(crate) text: String,
    /// Line, from 1.
    pub(crate) line: usize,
    /// Inline modules around it, outermost first.
    pub(crate) modules: Vec<String>,
}

/// Splits a source into tokens.
pub(crate) fn tokenize(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let skipped = skipped_len(rest, first);
        let len = if skipped > 0 {
            skipped
        } else {
            let len = token_len(rest, first);
            tokens.push(Token {
                text: rest[..len].to_owned(),
                line,
                modules: Vec::new(),
            });
            len
        };
        line += rest[..len].matches('\n').count();
        rest = &rest[len..];
    }
    name_modules(&mut tokens);
    tokens
}

/// Bytes of the comment, literal or space that `rest` starts with; 0 if it starts with a token.
fn skipped_len(rest: &str, first: char) -> usize {
    if first.is_whitespace() {
        return first.len_utf8();
    }
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return comment_len(rest);
    }
    if first == '\'' {
        return character_len(rest);
    }
    // A string may have a prefix: b, c, r, br, cr, and then signs # that must come again at its end.
    let prefix = rest.len() - rest.trim_start_matches(['b', 'c', 'r']).len();
    let hashes = rest[prefix..].len() - rest[prefix..].trim_start_matches('#').len();
    let is_raw = rest[..prefix].ends_with('r');
    let start = prefix + hashes;
    if prefix > 2 || !rest[start..].starts_with('"') || (hashes > 0 && !is_raw) {
        return 0;
    }
    if is_raw {
        let end = format!("\"{}", "#".repeat(hashes));
        let body = start + 1;
        return rest[body..]
            .find(&end)
            .map_or(rest.len(), |at| body + at + end.len());
    }
    quoted_len(rest, start, '"')
}

fn token_len(rest: &str, first: char) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    if is_word(first) {
        rest.find(|c| !is_word(c)).unwrap_or(rest.len())
    } else if rest.starts_with("::") {
        2
    } else {
        first.len_utf8()
    }
}

/// Block comments nest.
fn comment_len(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// A character, or just the quote of a lifetime.
fn character_len(rest: &str) -> usize {
    let mut inside = rest[1..].chars();
    match (inside.next(), inside.next()) {
        (Some('\\'), _) => quoted_len(rest, 0, '\''),
        (Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 1,
    }
}

/// Bytes up to and with the quote that closes the one at `start`.
fn quoted_len(rest: &str, start: usize, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest[start + 1..].char_indices() {
        if !escaped && c == quote {
            return start + 2 + at;
        }
        escaped = !escaped && c == '\\';
    }
    rest.len()
}

/// Writes into each token which `mod name { .. }` it is in.
fn name_modules(tokens: &mut [Token]) {
    // Each open brace, and the name if it opened a module.
    let mut open: Vec<Option<String>> = Vec::new();
    for at in 0..tokens.len() {
        if tokens[at].text == "}" {
            open.pop();
        }
        tokens[at].modules = open.iter().flatten().cloned().collect();
        if tokens[at].text == "{" {
            let is_module = at >= 2 && tokens[at - 2].text == "mod";
            open.push(is_module.then(|| tokens[at - 1].text.clone()));
        }
    }
}
