use super::*;
use crate::args::service::Service;

fn parse_line(line: &str) -> Result<Cli, clap::Error> {
    parse(line.split_whitespace().map(Into::into))
}

fn leaves<'a>(tree: &'a Tree, path: String, out: &mut Vec<(String, &'a Tree)>) {
    if !tree.has_subcommands() {
        out.push((path, tree));
        return;
    }
    for sub in tree.get_subcommands() {
        leaves(sub, format!("{path} {}", sub.get_name()), out);
    }
}

#[test]
fn the_tree_of_commands_is_sound() {
    command().debug_assert();
}

#[test]
fn the_help_of_every_command_has_an_example_of_that_command() {
    let tree = command();
    let mut all = Vec::new();
    leaves(&tree, "rswarm".into(), &mut all);
    assert!(all.len() > 40, "{}", all.len());
    for (path, leaf) in all {
        let help = leaf.clone().render_long_help().to_string();
        // The hidden `swarm` shows the commands without it.
        let shown = path.replace("rswarm swarm", "rswarm");
        assert!(help.contains("Example:") && help.contains(&shown), "{path}:\n{help}");
    }
}

#[test]
fn every_shown_example_is_a_valid_command_line() {
    let tree = command();
    let mut all = Vec::new();
    leaves(&tree, "rswarm".into(), &mut all);
    for (path, leaf) in all {
        let help = leaf.get_after_help().map(ToString::to_string).unwrap_or_default();
        let line = help.lines().find(|l| l.contains("rswarm ")).unwrap_or_default();
        let line = line.split(" < ").next().unwrap_or_default();
        let words = rswarm_types::parse::split_words(line).unwrap();
        assert!(parse(words.into_iter().map(Into::into)).is_ok(), "{path}: {line}");
    }
}

#[test]
fn switches_take_values_as_gos_do() {
    for (line, detach) in
        [("rswarm stack rm s", true), ("rswarm stack rm -d s", true), ("rswarm stack rm --detach=false s", false)]
    {
        let Command::Stack(stack::Stack::Rm(rm)) = parse_line(line).unwrap().command else { panic!("{line}") };
        assert_eq!(rm.detach, detach, "{line}");
    }
    let Command::Leave(leave) = parse_line("rswarm leave --force=false").unwrap().command else { panic!() };
    assert!(!leave.force);
    let Command::Leave(leave) = parse_line("rswarm leave -f").unwrap().command else { panic!() };
    assert!(leave.force);
}

#[test]
fn what_follows_the_image_is_the_containers() {
    let line = "rswarm service create -d --name web --host a:10.0.0.1 nginx --name x -d";
    let Command::Service(service) = parse_line(line).unwrap().command else { panic!() };
    let Service::Create(create) = *service else { panic!() };
    assert_eq!(create.name, "web");
    assert_eq!(create.image_and_args, ["nginx", "--name", "x", "-d"]);
    assert!(create.flags.wait.detach);
}

#[test]
fn flags_that_come_later_are_refused_by_name_not_ignored() {
    for (line, flag) in [
        ("rswarm service create --secret a --isolation default nginx", "--secret is not built yet"),
        ("rswarm service create --memory-swappiness -1 nginx", "--memory-swappiness is not built yet"),
    ] {
        let Command::Service(service) = parse_line(line).unwrap().command else { panic!() };
        let Service::Create(create) = *service else { panic!() };
        let error = create.later.refuse().unwrap_err();
        assert_eq!(error.code(), 2);
        assert!(error.to_string().contains(flag), "{error}");
    }
    let Command::Init(init) = parse_line("rswarm init --autolock --force-new-cluster").unwrap().command else {
        panic!()
    };
    assert_eq!(init.later.refuse().unwrap_err().to_string().lines().count(), 2);
    let Command::Init(init) = parse_line("rswarm init").unwrap().command else { panic!() };
    assert!(init.later.refuse().is_ok());
}

#[test]
fn aliases_and_the_hidden_swarm_are_known() {
    for line in [
        "rswarm service list",
        "rswarm service remove web",
        "rswarm node list",
        "rswarm stack up -c a.yml s",
        "rswarm stack down s",
        "rswarm swarm init",
        "rswarm swarm join --token t 10.0.0.1:2377",
        "rswarm swarm join-token worker",
        "rswarm swarm leave",
        "rswarm -H unix:///a.sock info",
    ] {
        assert!(parse_line(line).is_ok(), "{line}");
    }
    let help = command().render_long_help().to_string();
    assert!(!help.contains("Docker's place"), "{help}");
}

#[test]
fn a_command_of_docker_that_is_not_built_yet_is_refused_by_name() {
    for (line, text) in [
        ("rswarm secret ls", "error: \"rswarm secret\" is not built yet\n"),
        ("rswarm exec -it web.1 sh", "error: \"rswarm exec\" is not built yet\n"),
        ("rswarm swarm unlock", "error: \"rswarm swarm unlock\" is not built yet\n"),
        ("rswarm network prune", "error: \"rswarm network prune\" is not built yet\n"),
        ("rswarm images", "error: there is no \"rswarm images\": it is \"rswarm image ls\"\n"),
    ] {
        let error = parse_line(line).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_code()), (text, 2), "{line}");
    }
    let error = parse_line("rswarm servise ls").unwrap_err().to_string();
    assert!(error.contains("unrecognized") && error.contains("service"), "{error}");
}

#[test]
fn what_is_said_to_be_built_later_does_not_exist_now() {
    let tree = command();
    for (group, names) in later::COMMANDS {
        let parent = if *group == "rswarm" { &tree } else { tree.find_subcommand(group).unwrap() };
        for name in *names {
            assert!(parent.find_subcommand(name).is_none(), "{group} {name}");
        }
    }
}
