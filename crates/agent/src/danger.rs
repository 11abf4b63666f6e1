//! temporary
pub struct Danger {
    pub rule: &'static str,
    pub reason: String,
}
pub fn judge(command: &str) -> Option<Danger> {
    command.contains("rm -rf /workspace").then(|| Danger { rule: "x", reason: "it deletes".to_owned() })
}
