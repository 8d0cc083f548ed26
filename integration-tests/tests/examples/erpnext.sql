-- The columns of ERPNext 14 and 15 that config/examples/erpnext.toml names, by their types, and rows with what it says of
-- them.
create table tabCustomer (
  name varchar(140) primary key, creation datetime(6), modified datetime(6), customer_name varchar(140), gender varchar(140),
  customer_primary_contact varchar(140), mobile_no varchar(140), is_internal_customer int(1) not null default 0,
  disabled int(1) not null default 0
);
create table tabContact (
  name varchar(140) primary key, modified datetime(6), mobile_no varchar(140), phone varchar(140), unsubscribed int(1) not null default 0
);
create table `tabSales Invoice` (
  name varchar(140) primary key, modified datetime(6), docstatus int(1) not null default 0, customer varchar(140), posting_date date,
  posting_time time(6), base_grand_total decimal(21, 9) not null default 0, is_return int(1) not null default 0, return_against varchar(140),
  is_consolidated int(1) not null default 0, is_opening varchar(140) default 'No'
);
create table `tabPOS Invoice` (
  name varchar(140) primary key, modified datetime(6), docstatus int(1) not null default 0, customer varchar(140), pos_profile varchar(140),
  posting_date date, posting_time time(6), base_grand_total decimal(21, 9) not null default 0, is_return int(1) not null default 0,
  return_against varchar(140)
);

insert into tabContact values
  ('C-1', '2024-01-02', '139 0012 3401', '', 0), ('C-2', '2024-01-02', '', '+86 139 0012 3402', 1), ('C-4', '2024-01-02', '13900123404', '', 0);
insert into tabCustomer values
  ('CUST-1', '2024-01-02', '2024-01-02', '王小花', 'Female', 'C-1', '13900123499', 0, 0),
  ('CUST-2', '2024-01-02', '2024-01-02', '李四', null, 'C-2', null, 0, 0),
  ('CUST-3', '2024-01-02', '2024-01-02', '赵六', 'Male', null, '13900123403', 0, 0),
  ('CUST-4', '2024-01-02', '2024-01-02', '停用', null, 'C-4', null, 0, 1),
  ('CUST-5', '2024-01-02', '2024-01-02', '分公司', null, null, '13900123405', 1, 0);
insert into `tabPOS Invoice` values
  ('P-1', '2025-03-10', 1, 'CUST-1', '人民广场', '2025-03-10', '10:00:00', 100, 0, null),
  ('P-2', '2025-04-11', 1, 'CUST-1', '南京路', '2025-04-11', '10:00:00', 200, 0, null),
  ('P-3', '2025-04-12', 1, 'CUST-1', '南京路', '2025-04-12', '10:00:00', -50, 1, 'P-2'),
  ('P-4', '2025-05-12', 2, 'CUST-1', '人民广场', '2025-05-12', '10:00:00', 999, 0, null);
insert into `tabSales Invoice` values
  ('S-1', '2025-03-10', 1, 'CUST-1', '2025-03-10', '22:00:00', 100, 0, null, 1, 'No'),
  ('S-2', '2025-03-10', 1, 'CUST-2', '2025-03-10', '10:00:00', 75, 0, null, 0, 'No'),
  ('S-3', '2025-03-10', 0, 'CUST-2', '2025-03-11', '10:00:00', 999, 0, null, 0, 'No'),
  ('S-4', '2024-01-02', 1, 'CUST-2', '2024-01-02', '10:00:00', 999, 0, null, 0, 'Yes'),
  ('S-5', '2025-03-12', 1, 'CUST-2', '2025-03-12', '10:00:00', 5, 0, 'S-2', 0, 'No');
