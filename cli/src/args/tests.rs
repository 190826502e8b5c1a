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
fn what_begins_with_a_dash_is_a_flag_never_the_image() {
    for flag in ["--no-such-flag", "--privileged", "--security-opt=x", "-z"] {
        let error = parse_line(&format!("rswarm service create {flag} nginx")).unwrap_err().to_string();
        let name = flag.split('=').next().unwrap_or(flag);
        assert!(error.contains(&format!("unexpected argument '{name}' found")), "{error}");
        assert!(!error.contains("as a value"), "{error}");
    }
    assert!(parse_line("rswarm service create nginx --privileged -z").is_ok(), "the container's own");
    let line = "rswarm service create --entrypoint -x --env -A=1 --tty --name --odd nginx --privileged";
    let Command::Service(service) = parse_line(line).unwrap().command else { panic!() };
    let Service::Create(create) = *service else { panic!() };
    assert_eq!(create.flags.entrypoint.as_deref(), Some("-x"), "a flag's value may begin with a dash");
    assert_eq!((create.name.as_str(), create.env.as_slice()), ("--odd", ["-A=1".to_owned()].as_slice()));
    assert_eq!(create.image_and_args, ["nginx", "--privileged"]);
    let error = parse_line("rswarm service create --replcas 2 nginx").unwrap_err().to_string();
    assert!(error.contains("--replicas"), "a near name is told: {error}");
}

#[test]
fn of_a_flag_given_twice_the_last_holds_and_lists_add_up() {
    let line = "rswarm service create --replicas 1 --name a --replicas 2 --name b --env A=1 --env B=2 --read-only \
                --read-only=false --detach --detach=false --quiet -q --secret a --secret b nginx";
    let Command::Service(service) = parse_line(line).unwrap().command else { panic!() };
    let Service::Create(create) = *service else { panic!() };
    assert_eq!((create.name.as_str(), create.flags.replicas), ("b", Some(2)));
    assert_eq!(create.env, ["A=1", "B=2"]);
    assert_eq!((create.flags.read_only, create.flags.wait.detach, create.flags.wait.quiet), (Some(false), false, true));
    let Command::Ps(ps) = parse_line("rswarm ps --format a --format b -n 1 -n 2 -f a=1 -f b=2 -a -a").unwrap().command
    else {
        panic!()
    };
    assert_eq!((ps.list.format.as_deref(), ps.last, ps.filter.len(), ps.all), (Some("b"), 2, 2, true));
    assert!(parse_line("rswarm -H unix:///a -H unix:///b info --format a -f b").is_ok());
}

#[test]
fn every_flag_and_argument_has_a_help_text() {
    let tree = command();
    let mut all = Vec::new();
    leaves(&tree, "rswarm".into(), &mut all);
    for (path, leaf) in all {
        for arg in leaf.get_arguments().filter(|arg| arg.get_help_heading().is_none()) {
            assert!(arg.get_help().is_some(), "{path}: {}", arg.get_id());
        }
    }
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
