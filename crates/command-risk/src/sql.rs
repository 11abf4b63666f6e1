//! Detects database statements that destroy data.

/// Returns a description of the data that the statements destroy, or `None` if they destroy none. Recognizes
/// SQL and common commands of MongoDB and Redis.
pub(super) fn destroys(text: &str) -> Option<&'static str> {
    statements(text).iter().find_map(|words| statement(words))
}

fn statement(words: &[String]) -> Option<&'static str> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let has_condition = words.windows(2).any(|pair| {
        matches!(pair, ["WHERE", condition] if !matches!(*condition, "TRUE" | "1" | "1=1" | "'1'='1'"))
    });
    for (at, window) in words.windows(2).enumerate() {
        let is_first = at == 0 || matches!(words.first(), Some(&"WITH" | &"EXPLAIN" | &"BEGIN"));
        match window {
            ["DROP", "DATABASE"] if is_first => return Some("a whole database"),
            ["DROP", "TABLE" | "SCHEMA" | "COLLECTION" | "KEYSPACE" | "TABLESPACE"] if is_first => {
                return Some("tables with all their data");
            }
            ["TRUNCATE", _] if is_first => return Some("everything in a table"),
            ["DELETE", "FROM"] if is_first && !has_condition => return Some("everything in a table"),
            ["UPDATE", _] if is_first && !has_condition && words.contains(&"SET") => {
                return Some("values in every row of a table");
            }
            _ => {}
        }
    }
    let flushes = words.iter().any(|word| matches!(*word, "FLUSHALL" | "FLUSHDB"));
    let joined = words.concat();
    let calls = ["DROPDATABASE()", ".DROP()", "DELETEMANY({})", ".REMOVE({})"];
    let calls = calls.iter().any(|call| joined.contains(call));
    (flushes || calls).then_some("everything in a collection or a database")
}

/// Splits the text into statements, and each statement into words in upper case. Comments are removed.
fn statements(text: &str) -> Vec<Vec<String>> {
    let mut statements = vec![Vec::new()];
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if let Some(end) = quote {
            word.push(if c.is_whitespace() { '_' } else { c });
            quote = (c != end).then_some(end);
            continue;
        }
        match c {
            '-' if chars.peek() == Some(&'-') => while chars.next_if(|c| *c != '\n').is_some() {},
            '/' if chars.peek() == Some(&'*') => {
                chars.next();
                // MySQL executes the content of a comment of the form `/*! … */`.
                let is_executed = chars.next_if_eq(&'!').is_some();
                while is_executed && chars.next_if(char::is_ascii_digit).is_some() {}
                end_word(&mut word, &mut statements);
                if !is_executed {
                    let mut last = ' ';
                    for c in chars.by_ref() {
                        if last == '*' && c == '/' {
                            break;
                        }
                        last = c;
                    }
                }
            }
            '*' if chars.peek() == Some(&'/') => drop(chars.next()),
            ';' => {
                end_word(&mut word, &mut statements);
                statements.push(Vec::new());
            }
            c if c.is_whitespace() => end_word(&mut word, &mut statements),
            c => {
                quote = matches!(c, '\'' | '"' | '`').then_some(c);
                word.extend(c.to_uppercase());
            }
        }
    }
    end_word(&mut word, &mut statements);
    statements
}

fn end_word(word: &mut String, statements: &mut [Vec<String>]) {
    let word = std::mem::take(word);
    let word = word.trim_start_matches('(').to_owned();
    if let Some(statement) = statements.last_mut().filter(|_| !word.is_empty()) {
        statement.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destructive_statements_are_found() {
        for text in [
            "drop table users",
            "DROP/**/TABLE x",
            "select 1; drop database shop;",
            "TRUNCATE users",
            "delete from users",
            "DELETE FROM users WHERE 1=1",
            "update users set a = 1",
            "/*!50000 DROP TABLE x */",
            "-- a\nDROP SCHEMA public CASCADE",
            "db.dropDatabase()",
            "db.users.deleteMany({})",
            "FLUSHALL",
            "WITH x AS (SELECT 1) DELETE FROM t",
        ] {
            assert!(destroys(text).is_some(), "{text}");
        }
        for text in [
            "select * from users",
            "delete from users where id = 3",
            "update users set a = 1 where id = 2",
            "insert into notes values ('drop table x; delete from y')",
            "-- drop table x\nselect 1",
            "create table if not exists t (a int)",
            "DROP INDEX i",
            "db.users.deleteMany({old: true})",
        ] {
            assert_eq!(destroys(text), None, "{text}");
        }
    }
}
