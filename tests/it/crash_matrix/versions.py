"""What a directory holds, as the state that follows from it."""


def facts(version):
    """The state that follows if the directory holds `version`."""
    if "facts" not in version:
        found = {("Users", name): user for name, user in version["users"].items()}
        for name, group in version["groups"].items():
            found[("Groups", name)] = {"displayName": group["displayName"]}
        for name, group in version["groups"].items():
            for member in group["members"]:
                who = ("Groups" if member.startswith("g") else "Users", member)
                # Servers go on listing removed members.
                if who in found:
                    found[who + (name,)] = True
        version["facts"] = found
    return version["facts"]


def difference(one, other):
    keys = [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
    return "; ".join(
        f"{key}: {one.get(key)} instead of {other.get(key)}" for key in sorted(keys)[:3]
    )


def is_kept_beside(state, before, version):
    """Whether the state is that of `version`, but for what a sync keeps because nothing proves that it is gone.

    That is what was in the state before, and memberships that a group still lists.
    """
    wanted = facts(version)
    if any(state.get(key) != image for key, image in wanted.items()):
        return False
    kept = [key for key in state if key not in wanted]
    return all(before.get(key) == state[key] or is_listed(key, version) for key in kept)


def is_listed(key, version):
    return len(key) == 3 and key[1] in version["groups"].get(key[2], {"members": ()})["members"]
