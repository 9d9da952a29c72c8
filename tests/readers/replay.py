def part(world, checks):
    pass
