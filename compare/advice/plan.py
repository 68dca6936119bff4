"""A day of exams, second by second: who joins when, what that asks of either deployment, and where it breaks.

A fluid simulation in steps of one second. Students arrive in a given shape, stay for the exam, lose their connection now and
then and come back. Instances are kept in groups that were started together, because those behave alike: a load balancer sends
*new* connections everywhere, so instances that are started late stay emptier than the first ones. Only one that is full, or that
is behind with its work, gets no more, and asks some of its clients to go elsewhere. The scaler looks once a minute at the minute
before, as one does that follows a CloudWatch metric. CPU credits are kept for each group.

All of it is modelled: coefficients measured on one machine, times of AWS from published sources, the shapes assumed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from compare.bill.assumptions import Assumptions
from compare.bill.cost import CostError, ExamPlan, cluster_cost, serverless_cost
from compare.bill.credits import FULL_HOURS, MINUTES
from compare.bill.prices import InstanceType, Prices
from compare.bill.stretch import FORCED_RECONNECT_HOURS
from compare.model.calibration import Calibration
from compare.model.latency import cluster_way, serverless_way
from compare.model.units import Exam, cluster_usage, events, serverless_usage

Arrival = Literal["surge", "even", "waves"]
Scaling = Literal["auto", "scheduled"]

DAY = 86_400
RESEND_MS = 5_000.0  # a page sends a report again that was not acknowledged
CONNECTS_A_SECOND = 500.0
REQUESTS_A_SECOND = 10_000.0
ENVIRONMENTS_A_TEN_SECONDS = 1_000.0
REDIS_SHARE = 0.7  # of its one thread
SAMPLE_SECONDS = 60
STORM_SECONDS = 30  # in which those come back who lost their connection at once: pages wait a random time first
BEHIND_SECONDS = 2.0  # of work waiting: an instance takes no new connections and sends some away
SHED_A_SECOND = 0.01  # of its connections
SATURATED_MS = 60_000.0  # beyond this a time says only that the deployment is overrun
MARGIN_SECONDS = 1_800  # simulated before the first and after the last student


class Day(msgspec.Struct, frozen=True):
    """What is simulated."""

    exam: Exam
    calibration: Calibration
    prices: Prices
    given: Assumptions
    arrival: Arrival = "surge"
    begins_hour: float = 6.0
    scaling: Scaling = "auto"
    target_cpu: float = 0.5  # that the scaler aims at
    boot_seconds: float = 150.0  # from the decision until an instance takes connections
    cooldown_seconds: float = 300.0
    quiet_minutes: int = 15  # below the target before an instance is taken away
    most_instances: int = 10_000
    storm_hour: float | None = None  # when a share of all connections is lost at once
    storm_share: float = 0.5
    concurrency: float = 1_000.0  # Lambda's, of the account


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One minute: its last second, and its worst one where that is said."""

    hour: float
    connections: float
    joins_a_second: float  # worst
    instances: float
    cpu: float  # share of the vCPUs in use, all instances
    busiest_cpu: float  # worst, of the fullest group
    cluster_p95_ms: float  # worst
    serverless_p95_ms: float  # worst
    executions: float  # of Lambda at the same time, worst
    waiting_to_join: float  # at API Gateway, for its limit of new connections
    cluster_usd: float  # since midnight
    serverless_usd: float
    credits: float  # lowest balance of an instance


class Crossing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A limit that the day crosses."""

    deployment: Literal["serverless", "cluster"]
    name: str
    first_hour: float
    seconds: float
    worst: float
    allowed: float
    unit: str
    advice: str


class DayResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of the day."""

    students: int
    arrival: Arrival
    scaling: Scaling
    instance_type: str
    samples: tuple[Sample, ...]
    crossings: tuple[Crossing, ...]
    most_instances: int
    steady_instances: int  # that carry all students at the target, without the joins
    peak_joins: float
    peak_connections: float
    worst_cluster_p95_ms: float
    worst_serverless_p95_ms: float
    cluster_usd: float
    serverless_usd: float
    surplus_vcpu_hours: float


class _Group(msgspec.Struct):
    """Instances that were started together."""

    count: int
    ready_at: float
    each: float = 0.0  # connections on each
    balance: float = 0.0  # CPU credits of each
    backlog: float = 0.0  # seconds of work that wait on each
    joins: float = 0.0  # a second, on each, right now
    used: float = 0.0  # vCPUs on each, right now
    charged: float = 0.0  # credits of each


class _Watch(msgspec.Struct):
    """Keeps book of a limit."""

    deployment: Literal["serverless", "cluster"]
    name: str
    allowed: float
    unit: str
    advice: str
    first: float | None = None
    seconds: float = 0.0
    worst: float = 0.0

    def see(self, second: float, value: float) -> None:
        """Note a value."""
        self.worst = max(self.worst, value)
        if value > self.allowed:
            self.seconds += 1
            if self.first is None:
                self.first = second

    def crossing(self) -> Crossing | None:
        """The crossing, if there was one."""
        if self.first is None:
            return None
        hour = self.first / 3600
        return Crossing(
            self.deployment, self.name, hour, self.seconds, self.worst, self.allowed, self.unit, self.advice
        )


class _Rates(msgspec.Struct, frozen=True):
    """What one connected student, and one join, ask for."""

    frames: float  # to the server, a second
    posts: float  # from it, a second
    cpu: float  # of instances, vCPU seconds a second
    join_cpu: float
    redis: float  # of the Redis thread, seconds a second
    join_redis: float
    idle_cpu: float  # of one instance
    busy_s: float  # of an invocation


def arrivals(day: Day) -> list[float]:
    """Students who join in each second of the day."""
    window = max(1.0, day.exam.arrival_minutes * 60)
    sittings = [(day.begins_hour, 1.0)]
    if day.arrival == "waves":
        sittings = [(day.begins_hour + number * (day.exam.hours + 1.0), 1 / 3) for number in range(3)]
    joins = [0.0] * DAY
    for hour, share in sittings:
        start = hour * 3600
        for second in range(int(start), min(DAY, int(start + window) + 1)):
            place, step = (second - start) / window, 1 / window
            joins[second] += day.exam.students * share * (_come(day.arrival, place + step) - _come(day.arrival, place))
    return joins


def _come(arrival: Arrival, place: float) -> float:
    """Share of the students who came in the first part of the window. A surge is a triangle with its top at a quarter."""
    place = min(1.0, max(0.0, place))
    if arrival == "even":
        return place
    return 4 * place**2 if place < 0.25 else 1 - 4 / 3 * (1 - place) ** 2


def rates(day: Day) -> _Rates:
    """From the coefficients: what to multiply connections and joins with."""
    alone = msgspec.structs.replace(day.exam, drops_per_hour=0.0)
    happened = events(alone, day.calibration)
    seconds = happened.student_seconds
    known = day.calibration.cluster
    factor = day.given.cpu_factor(day.given.instance_type.partition(".")[0]).used
    workers, journal = known.cpu_ms["workers"], known.cpu_ms["journal"]
    changes, sames = happened.changes / seconds, happened.sames / seconds
    acks = max(0.0, happened.acks - happened.student_connects) / seconds
    shown = changes * day.exam.proctors_per_exam
    cpu = changes * workers["change"] + sames * workers["same"] + (acks + shown) * workers["frame_out"]
    redis = changes * known.cpu_ms["redis"].get("change", 0.0) + sames * known.cpu_ms["redis"].get("same", 0.0)
    entries = known.entries_per_student
    idle = workers.get("worker_second", 0.0) * 2 + workers.get("second", 0.0) + journal.get("second", 0.0)
    return _Rates(
        frames=changes + sames,
        posts=acks + shown,
        cpu=cpu * factor / 1000,
        join_cpu=(workers["connect"] + workers["change"] + entries * journal.get("entry", 0.0)) * factor / 1000,
        redis=redis * factor / 1000,
        join_redis=(known.cpu_ms["redis"].get("connect", 0.0) + entries * known.cpu_ms["redis"].get("entry", 0.0))
        * factor
        / 1000,
        idle_cpu=idle * factor / 1000,
        busy_s=day.calibration.serverless.assumed_busy_ms / 1000,
    )


def room(day: Day, instance: InstanceType) -> float:
    """Connections for which an instance has memory."""
    idle = sum(day.calibration.cluster.idle_bytes.values())
    spare = instance.memory_gib * 2**30 * day.given.memory_share - idle
    if spare <= 0:
        raise CostError(f"--instance-type: {instance.type} is too small for the processes alone")
    return spare / day.calibration.cluster.connection_bytes


def steady_instances(day: Day) -> int:
    """Instances that carry all students at the scaler's target, when nobody joins any more."""
    instance = day.prices.instance(day.given.instance_type)
    each = rates(day)
    aim = instance.vcpu * day.target_cpu - each.idle_cpu
    by_cpu = day.exam.students * each.cpu / aim
    if by_cpu <= 1 < day.exam.students * (each.cpu + each.redis) / aim:
        by_cpu = 1.1  # with Redis on it, one is not enough
    return max(day.given.min_instances, math.ceil(max(by_cpu, day.exam.students / room(day, instance))))


def simulate(day: Day) -> DayResult:
    """Run the day. Raises CostError and PriceError."""
    return _Simulation(day).run()


class _Simulation:
    """One run. The step is a second; see the module's docstring."""

    def __init__(self, day: Day) -> None:
        self.day = day
        self.each = rates(day)
        self.instance = day.prices.instance(day.given.instance_type)
        self.room = room(day, self.instance)
        self.steady = steady_instances(day)
        self.joining = arrivals(day)
        first = next(second for second, count in enumerate(self.joining) if count)
        last = max(second for second, count in enumerate(self.joining) if count)
        self.begin = max(0, first - MARGIN_SECONDS)
        self.end = min(DAY, int(last + day.exam.hours * 3600 + 2 * MARGIN_SECONDS))
        ready = day.given.min_instances
        if day.scaling == "scheduled":
            surge = max(self.joining) * self.each.join_cpu
            needed = (day.exam.students * self.each.cpu + surge) / (self.instance.vcpu * day.target_cpu)
            ready = max(self.steady, math.ceil(needed + day.given.spare_instances))
        self.least = ready
        self.groups = [_Group(ready, 0.0)]
        self.retired: list[float] = []  # credits charged of instances that are gone
        self.instance_seconds = 0.0
        self.minute_cpu: list[float] = []
        self.quiet = 0
        self.last_action = -math.inf
        self.waiting = 0.0
        self.lost = 0.0
        self.environments = 0.0
        self.on_gateway = 0.0
        self.p95_of: dict[tuple[float, bool], float] = {}  # by the busy share, and whether Redis is outside
        self.serverless_p95 = serverless_way(day.calibration, day.given, day.exam.proctors_per_exam).p95_ms
        self.watches = self._watches()
        self._prepare_money()

    def _watches(self) -> dict[str, _Watch]:
        day = self.day
        return {
            "connects": _Watch(
                "serverless",
                "New WebSocket connections a second",
                CONNECTS_A_SECOND,
                "connections/s",
                "raise L-9ED1E49A, or let students in over a longer time",
            ),
            "requests": _Watch(
                "serverless",
                "API Gateway requests and @connections posts a second",
                REQUESTS_A_SECOND,
                "requests/s",
                "raise the account's throttle rate",
            ),
            "executions": _Watch(
                "serverless", "Lambda concurrent executions", day.concurrency, "executions", "raise L-B99A9384"
            ),
            "growth": _Watch(
                "serverless",
                "New environments of a function in 10 s",
                ENVIRONMENTS_A_TEN_SECONDS,
                "environments",
                "nobody raises it: provision some before the start, or let students in over a longer time",
            ),
            "cut": _Watch(
                "serverless",
                "Age of a connection",
                FORCED_RECONNECT_HOURS,
                "hours",
                "every student reconnects; planned for, and proctors do not see it",
            ),
            "cpu": _Watch(
                "cluster",
                "CPU of the fullest instances",
                1.0,
                "of the vCPUs",
                "start instances before the exam (--scaling scheduled), or aim lower (--target-cpu)",
            ),
            "memory": _Watch(
                "cluster",
                "Connections on one instance, by memory",
                self.room,
                "connections",
                "take a type with more memory",
            ),
            "redis": _Watch(
                "cluster",
                "The one thread of Redis",
                REDIS_SHARE,
                "of a vCPU",
                "spread the exams over a Redis Cluster: their keys are tagged for it",
            ),
            "credits": _Watch(
                "cluster",
                "Borrowed CPU credits",
                0.0,
                "credits of an instance",
                "surplus is charged; a type that is not burstable",
            ),
            "most": _Watch(
                "cluster", "Instances allowed", float(day.most_instances), "instances", "raise --most-instances"
            ),
        }

    def _prepare_money(self) -> None:
        """Dollars of the day apart from instances: by frames for serverless, by the hour for the cluster."""
        day = self.day
        plan = ExamPlan(day.exam.hours, 1.0)
        serverless = serverless_cost(
            serverless_usage(day.exam, day.calibration), plan, day.prices, None, day.given, only_month=True
        )
        self.serverless_usd = serverless.exam.usd
        whole, opening = cluster_usage(day.exam, day.calibration)
        several = msgspec.structs.replace(
            day.given, min_instances=max(2 if self.steady > 1 else 1, day.given.min_instances)
        )
        exam = cluster_cost(whole, plan, day.prices, opening, several, only_month="scale to zero").exam
        hourly = ("Load balancer", "Public IPv4 addresses", "ElastiCache for Valkey", "Disks (gp3)")
        by_use = [
            line
            for line in exam.lines
            if not line.name.startswith(("Instances", "CPU above")) and line.name not in hourly
        ]
        self.cluster_use_usd = sum(line.usd for line in by_use)
        self.standing_usd_hour = day.prices.price("nlb", "hour").cost(
            1
        ) + day.given.load_balancer_addresses * day.prices.price("vpc", "public-ipv4-hour").cost(1)
        if self.steady > 1:
            node = day.prices.price("elasticache", f"valkey-{day.given.cache_node}").cost(1)
            self.standing_usd_hour += day.given.cache_nodes * node
        self.instance_usd_hour = day.prices.price("ec2", self.instance.type).cost(1) + day.prices.price(
            "vpc", "public-ipv4-hour"
        ).cost(1)
        self.surplus_usd = 0.0
        if self.instance.baseline is not None:
            self.surplus_usd = day.prices.price("ec2", f"surplus-credit-{self.instance.family}").cost(1)

    def run(self) -> DayResult:
        """All seconds, a sample each minute."""
        day, each = self.day, self.each
        stay = int(day.exam.hours * 3600)
        cut = int(FORCED_RECONNECT_HOURS * 3600)
        dropping = day.exam.drops_per_hour / 3600
        storm_at = None if day.storm_hour is None else int(day.storm_hour * 3600)
        frames_total = max(1.0, day.exam.students * day.exam.hours * 3600 * each.frames)
        frames_done = 0.0
        samples: list[Sample] = []
        worst = _Worst()
        for second in range(self.begin, self.end):
            new = self.joining[second]
            leaving = self.joining[second - stay] if second >= stay else 0.0
            connected = sum(group.count * group.each for group in self.groups)
            storm = connected * day.storm_share if second == storm_at else 0.0
            back = connected * dropping
            returning = self._returning(second, storm_at, storm)
            self._move(second, new + back + returning, leaving + back + storm)
            connected = sum(group.count * group.each for group in self.groups)
            cluster_p95 = self._work(second, connected, new + back + returning)
            offered = new + self.on_gateway * dropping
            if stay > cut and second >= cut:
                offered += self.joining[second - cut]  # API Gateway cut them after two hours
                self.watches["cut"].see(second, day.exam.hours if self.joining[second - cut] else 0.0)
            if storm_at is not None and 0 < second - storm_at <= STORM_SECONDS:
                offered += self.on_gateway * day.storm_share / STORM_SECONDS
            serverless_p95, executions = self._gateway(second, offered, new, leaving)
            frames_done += connected * each.frames
            share = min(1.0, frames_done / frames_total)
            worst.see(new + back + returning, self._busiest(), cluster_p95, serverless_p95, executions)
            if second % 60 == 0:
                self._scale(second)
            if second % SAMPLE_SECONDS == 0:
                samples.append(self._sample(second, connected, worst, share))
                worst = _Worst()
        return self._result(samples)

    def _returning(self, second: int, storm_at: int | None, storm: float) -> float:
        """Those who come back in this second after a storm."""
        self.lost += storm
        if storm_at is None or not 0 < second - storm_at <= STORM_SECONDS:
            return 0.0
        return self.lost / STORM_SECONDS

    def _move(self, second: int, coming: float, leaving: float) -> None:
        """New connections go to all instances that take some, leaving ones come from where they are."""
        ready = [group for group in self.groups if group.ready_at <= second]
        total = sum(group.count * group.each for group in ready)
        gone = min(1.0, leaving / total) if total > 0 else 0.0
        shed = 0.0
        for group in ready:
            group.joins = 0.0
            group.each *= 1 - gone
            if group.backlog > BEHIND_SECONDS and len(ready) > 1:
                asked = group.each * SHED_A_SECOND
                group.each -= asked
                shed += asked * group.count
        taking = [group for group in ready if group.each < self.room and group.backlog <= BEHIND_SECONDS] or ready
        servers = sum(group.count for group in taking)
        for group in taking:
            group.joins = (coming + shed) / servers
            group.each += group.joins

    def _work(self, second: int, connected: float, joins: float) -> float:
        """CPU of each group, what waits, credits; the modelled 95th percentile of a delivery on the fullest."""
        each, vcpu = self.each, self.instance.vcpu
        earned = (self.instance.credits_per_hour or 0.0) / 3600
        most = (self.instance.credits_per_hour or 0.0) * FULL_HOURS
        busiest, backlog = 0.0, 0.0
        servers = sum(group.count for group in self.groups if group.ready_at <= second)
        redis = connected * each.redis + joins * each.join_redis
        for group in self.groups:
            if group.ready_at > second:
                continue
            wanted = (
                each.idle_cpu + group.each * each.cpu + group.joins * each.join_cpu + (redis if servers == 1 else 0.0)
            )
            group.used = min(float(vcpu), wanted + group.backlog * vcpu)
            group.backlog = max(0.0, group.backlog + (wanted - group.used) / vcpu)
            busiest = max(busiest, wanted / vcpu)
            backlog = max(backlog, group.backlog)
            if earned:
                group.balance = min(most, group.balance + earned - group.used * MINUTES / 3600)
                if group.balance < -most:
                    group.charged += -most - group.balance
                    group.balance = -most
            self.watches["memory"].see(second, group.each)
            self.instance_seconds += group.count
        self.watches["cpu"].see(second, busiest)
        self.watches["redis"].see(second, redis)
        if earned:
            lowest = min(group.balance for group in self.groups)
            self.watches["credits"].see(second, max(0.0, -lowest))
        self.minute_cpu.append(sum(group.count * group.used for group in self.groups) / (servers * vcpu))
        return min(SATURATED_MS, self._cluster_p95(busiest, servers) + backlog * 1000)

    def _cluster_p95(self, busy: float, servers: int) -> float:
        step = round(min(busy, 0.95), 2)
        key = (step, servers > 1)
        if key not in self.p95_of:
            self.p95_of[key] = cluster_way(self.day.calibration, self.day.given, step, servers).p95_ms
        return self.p95_of[key]

    def _busiest(self) -> float:
        return max(group.used for group in self.groups) / self.instance.vcpu

    def _gateway(self, second: int, offered: float, new: float, leaving: float) -> tuple[float, float]:
        """API Gateway and Lambda in this second: the modelled 95th percentile, and executions at the same time."""
        day, each = self.day, self.each
        self.watches["connects"].see(second, offered)
        asking = offered + self.waiting
        served = min(asking, CONNECTS_A_SECOND)
        self.waiting = asking - served
        self.on_gateway = max(0.0, self.on_gateway + new - leaving)
        reachable = max(0.0, self.on_gateway - self.waiting)
        frames, posts = reachable * each.frames, reachable * each.posts
        requests = frames + posts + 2 * served
        invocations = frames + 3 * served
        executions = invocations * each.busy_s
        self.watches["requests"].see(second, requests)
        self.watches["executions"].see(second, max(executions, invocations / 10))
        growth = max(0.0, executions - self.environments)
        self.watches["growth"].see(second, growth * 10)
        self.environments = max(executions, self.environments * 0.9995)  # idle ones go after some minutes
        refused = max(
            0.0,
            1 - REQUESTS_A_SECOND / requests if requests else 0.0,
            1 - day.concurrency / max(executions, invocations / 10) if invocations else 0.0,
        )
        p95 = self.serverless_p95
        if refused > 0.05:  # more than one of twenty is sent again, perhaps more than once
            p95 += RESEND_MS * math.ceil(math.log(0.05) / math.log(min(refused, 0.99)))
        return min(SATURATED_MS, p95), min(executions, day.concurrency)

    def _scale(self, second: int) -> None:
        """Once a minute: follow the CPU of the minute before, and memory."""
        day = self.day
        average = sum(self.minute_cpu) / len(self.minute_cpu) if self.minute_cpu else 0.0
        self.minute_cpu.clear()
        if day.scaling == "scheduled":
            return
        ready = sum(group.count for group in self.groups if group.ready_at <= second)
        coming = sum(group.count for group in self.groups if group.ready_at > second)
        fullest = max((group.each for group in self.groups), default=0.0)
        wanted = max(
            day.given.min_instances, math.ceil(ready * max(average / day.target_cpu, fullest / (0.9 * self.room)))
        )
        self.watches["most"].see(second, float(wanted))
        wanted = min(wanted, day.most_instances)
        if wanted > ready + coming:
            self.groups.append(_Group(wanted - ready - coming, second + day.boot_seconds))
            self.last_action, self.quiet = second, 0
        elif wanted < ready and not coming:
            self.quiet += 1
            if self.quiet >= day.quiet_minutes and second - self.last_action >= day.cooldown_seconds:
                self._take_away(second, ready - wanted)
        else:
            self.quiet = 0

    def _take_away(self, second: int, count: int) -> None:
        """Drain the newest instances: their connections move to the others and join there."""
        self.last_action, self.quiet = second, 0
        moved = 0.0
        while count > 0 and sum(group.count for group in self.groups) > max(1, self.day.given.min_instances):
            group = self.groups[-1]
            taken = min(count, group.count - (1 if len(self.groups) == 1 else 0))
            if taken <= 0:
                break
            moved += taken * group.each
            owed = group.charged + max(0.0, -group.balance)
            self.retired.append(taken * owed)
            group.count -= taken
            count -= taken
            if not group.count:
                self.groups.pop()
        servers = sum(group.count for group in self.groups)
        for group in self.groups:
            group.each += moved / servers

    def _money(self, second: int, share: float) -> tuple[float, float]:
        hours = (second - self.begin) / 3600
        instances = self.instance_seconds / 3600 * self.instance_usd_hour
        surplus = self._surplus_hours() * self.surplus_usd
        return (
            instances + surplus + self.standing_usd_hour * hours + self.cluster_use_usd * share,
            self.serverless_usd * share,
        )

    def _surplus_hours(self) -> float:
        return (sum(self.retired) + sum(group.count * group.charged for group in self.groups)) / MINUTES

    def _sample(self, second: int, connected: float, worst: _Worst, share: float) -> Sample:
        cluster_usd, serverless_usd = self._money(second, share)
        servers = sum(group.count for group in self.groups if group.ready_at <= second)
        used = sum(group.count * group.used for group in self.groups)
        return Sample(
            hour=second / 3600,
            connections=connected,
            joins_a_second=worst.joins,
            instances=float(servers),
            cpu=used / (servers * self.instance.vcpu),
            busiest_cpu=worst.busiest,
            cluster_p95_ms=worst.cluster_p95,
            serverless_p95_ms=worst.serverless_p95,
            executions=worst.executions,
            waiting_to_join=self.waiting,
            cluster_usd=cluster_usd,
            serverless_usd=serverless_usd,
            credits=min(group.balance for group in self.groups),
        )

    def _result(self, samples: Sequence[Sample]) -> DayResult:
        found = [watch.crossing() for watch in self.watches.values()]
        # at the day's end the instances go, and what they borrowed is charged
        owed = sum(group.count * max(0.0, -group.balance) for group in self.groups) / MINUTES
        surplus = self._surplus_hours() + owed
        cluster_usd, serverless_usd = self._money(self.end, 1.0)
        return DayResult(
            students=self.day.exam.students,
            arrival=self.day.arrival,
            scaling=self.day.scaling,
            instance_type=self.instance.type,
            samples=tuple(samples),
            crossings=tuple(crossing for crossing in found if crossing is not None),
            most_instances=int(max(sample.instances for sample in samples)),
            steady_instances=self.steady,
            peak_joins=max(sample.joins_a_second for sample in samples),
            peak_connections=max(sample.connections for sample in samples),
            worst_cluster_p95_ms=max(sample.cluster_p95_ms for sample in samples),
            worst_serverless_p95_ms=max(sample.serverless_p95_ms for sample in samples),
            cluster_usd=cluster_usd + owed * self.surplus_usd,
            serverless_usd=serverless_usd,
            surplus_vcpu_hours=surplus,
        )


class _Worst(msgspec.Struct):
    """The worst second of a minute."""

    joins: float = 0.0
    busiest: float = 0.0
    cluster_p95: float = 0.0
    serverless_p95: float = 0.0
    executions: float = 0.0

    def see(self, joins: float, busiest: float, cluster_p95: float, serverless_p95: float, executions: float) -> None:
        """Keep the highest of each."""
        self.joins = max(self.joins, joins)
        self.busiest = max(self.busiest, busiest)
        self.cluster_p95 = max(self.cluster_p95, cluster_p95)
        self.serverless_p95 = max(self.serverless_p95, serverless_p95)
        self.executions = max(self.executions, executions)
