//! The little HTML that a report needs.

use std::fmt::Write as _;

/// Text that no markup can be in.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            char => escaped.push(char),
        }
    }
    escaped
}

/// A table under construction. Cells are HTML.
#[derive(Debug)]
pub struct Table {
    text: String,
    columns: usize,
}

impl Table {
    /// With its caption and the heads of its columns, of which the first is of names and all others of numbers.
    pub fn new(caption: &str, heads: &[String]) -> Self {
        let mut text = format!(
            "<div class=\"scroll\" role=\"region\" aria-label=\"{0}\" tabindex=\"0\">\n<table>\n<caption><span>{0}</span></caption>\n<thead><tr>",
            escape(caption)
        );
        for head in heads {
            let _ = write!(text, "<th scope=\"col\">{head}</th>");
        }
        text.push_str("</tr></thead>\n");
        Self { text, columns: heads.len() }
    }

    /// The same, with what is small in a cell below what is not, for many columns.
    pub fn stacked(caption: &str, heads: &[String]) -> Self {
        let mut table = Self::new(caption, heads);
        table.text = table.text.replacen("<table>", "<table class=\"stacked\">", 1);
        table
    }

    /// Rows that belong together, with what is to be said of them. The first cell of each is its name.
    pub fn group(&mut self, remark: Option<&str>, rows: &[Vec<String>]) {
        self.text.push_str(if remark.is_some() { "<tbody class=\"tie\">\n" } else { "<tbody>\n" });
        if let Some(remark) = remark {
            let _ = writeln!(self.text, "<tr><th scope=\"rowgroup\" colspan=\"{}\">{}</th></tr>", self.columns, escape(remark));
        }
        for row in rows {
            let mut cells = row.iter();
            let _ = write!(self.text, "<tr><th scope=\"row\">{}</th>", cells.next().map_or("", String::as_str));
            cells.for_each(|cell| self.text.push_str(&format!("<td>{cell}</td>")));
            self.text.push_str("</tr>\n");
        }
        self.text.push_str("</tbody>\n");
    }

    /// The finished table.
    pub fn finish(self) -> String {
        self.text + "</table>\n</div>\n"
    }
}

/// Names and what they stand for. Both are HTML.
pub fn definitions(pairs: &[(String, String)]) -> String {
    let mut text = "<dl>\n".to_owned();
    for (name, value) in pairs {
        let _ = writeln!(text, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    text + "</dl>\n"
}

/// A line for a terminal.
pub fn command(words: &[String]) -> String {
    let quoted = words.iter().map(|word| {
        let is_plain = !word.is_empty() && word.chars().all(|char| char.is_ascii_alphanumeric() || "-_./:=,{}@+%".contains(char));
        if is_plain { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) }
    });
    format!("<code>{}</code>", escape(&quoted.collect::<Vec<_>>().join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_file_becomes_markup() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
        assert_eq!(command(&["sh".to_owned(), "-c".to_owned(), "a <b".to_owned()]), "<code>sh -c 'a &lt;b'</code>");
    }

    #[test]
    fn a_table_names_its_columns_rows_and_groups() {
        let mut table = Table::new("C", &["n".to_owned(), "v".to_owned()]);
        table.group(Some("not told apart"), &[vec!["a".to_owned(), "1".to_owned()]]);
        let text = table.finish();
        for part in [
            "<caption><span>C</span></caption>",
            "scope=\"col\">v",
            "scope=\"rowgroup\" colspan=\"2\">not told",
            "scope=\"row\">a</th><td>1",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
